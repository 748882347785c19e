"""How `relay status` looks, at any width; and on a screen, which has a height too."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from relay.cli.base import shown
from relay.cli.tables import WIDE, Column, Layout, Row, folded_lines, indented
from relay.operations.base import counted, seconds_text
from relay.operations.status import Status
from relay.operations.status_facts import COUNT_LIMIT
from relay.operations.status_order import Rank, grouped, rank

COLOURS = {
    "disabled": "dim", "invalid": "bold red", "broken": "bold red", "unowned": "red", "draining": "green",
    "running": "green", "retrying": "yellow", "held": "yellow", "waiting": "cyan", "idle": "dim",
}  # fmt: skip
_PIPELINE = (
    Column("pipeline"), Column("state", whole=True), Column("owner"), Column("offset", number=True, minor=True),
    Column("lag", number=True), Column("age", number=True), Column("delivered", number=True, minor=True),
    Column("dead", number=True), Column("next try", number=True), Column("why", long=True),
)  # fmt: skip
_QUEUE = (
    Column("queue"), Column("state", whole=True), Column("owner"), Column("due", number=True),
    Column("age", number=True), Column("scheduled", number=True, minor=True), Column("leased", number=True),
    Column("dead", number=True), Column("workers", number=True, minor=True), Column("next try", number=True),
    Column("why", long=True),
)  # fmt: skip
NONE_YET = "there are no pipelines; create one: relay pipeline set NAME OUTBOX|INBOX --config JSON"
_INBOXES = 5
"""So many that have dead messages are named."""
_SHORT_REASON = 40
"""A reason of at most this length is repeated, where each has a line of its own."""


@dataclass(frozen=True, slots=True)
class Group:
    """Pipelines, or queues, that share one reason."""

    rank: Rank
    first: str
    """The name of the first of them."""
    rows: list[list[Text]]
    reason: list[Text]
    """What stands below them; nothing where the reason stands beside each."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of pipelines, or of queues."""

    head: list[Text]
    groups: list[Group]


def lines_of(statuses: Sequence[Status], width: int) -> list[Text]:
    """Everything, the most urgent first."""
    if not statuses:
        return folded_lines(shown(NONE_YET, "dim"), width)
    lines: list[Text] = []
    for section in sections_of(statuses, width):
        lines += [Text("")] if lines else []
        lines += section.head
        for group in section.groups:
            lines += [line for row in group.rows for line in row] + group.reason
    return lines + inboxes_of(statuses, width) + owners_of(statuses, width)


def sections_of(statuses: Sequence[Status], width: int) -> list[Section]:
    pipelines = [status for status in statuses if status.jobs is None]
    queues = [status for status in statuses if status.jobs is not None]
    return [
        _section(found, title, width)
        for found, title in ((pipelines, ""), (queues, "queues of jobs"))
        if found
    ]  # fmt: skip


def inboxes_of(statuses: Sequence[Status], width: int) -> list[Text]:
    """Which inboxes have dead messages, however many pipelines write them."""
    dead = {status.inbox: status.inbox_dead for status in statuses if status.inbox and status.inbox_dead}
    if len(dead) > _INBOXES:
        return folded_lines(shown(f"{len(dead)} inboxes have dead messages: relay inbox list", "red"), width)
    lines = [
        f"inbox {inbox} has {counted(count, 'dead message')}: relay inbox messages {inbox} --dead"
        for inbox, count in sorted(dead.items())
    ]
    return [folded for line in lines for folded in folded_lines(shown(line, "red"), width)]


def owners_of(statuses: Sequence[Status], width: int) -> list[Text]:
    """Who owns what, where there is no room for a column that says it."""
    if width >= WIDE:
        return []
    owned: dict[str, list[str]] = {}
    for status in statuses:
        if status.owner:
            owned.setdefault(status.owner, []).append(name_of(status))
    found = [shown(f"{owner} owns {', '.join(names)}", "dim") for owner, names in sorted(owned.items())]
    return [Text(""), *(line for text in found for line in folded_lines(text, width))] if found else []


def name_of(status: Status) -> str:
    return status.jobs.queue if status.jobs else status.name


def summary_of(statuses: Sequence[Status]) -> str:
    """How many are in which state, the most urgent first."""
    counts = Counter(status.state for group in grouped(statuses) for status in group)
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no pipelines"


def _section(statuses: Sequence[Status], title: str, width: int) -> Section:
    groups = grouped(statuses)
    columns, cells = (_QUEUE, _queue) if title else (_PIPELINE, _pipeline)
    left_out = {"owner"} if width < WIDE else set()
    left_out |= {"next try"} if all(status.retry_seconds is None for status in statuses) else set()
    kept = [index for index, column in enumerate(columns) if column.title not in left_out]
    every = [[*cells(status), _why(status, group[0])] for group in groups for status in group]
    layout = Layout([columns[index] for index in kept], [[row[index] for index in kept] for row in every], width)
    laid_out = iter(layout.rows)
    head = [*([shown(title, "bold")] if title else []), layout.head]
    return Section(head, [_group(group, [next(laid_out) for _ in group], width) for group in groups])


def _pipeline(status: Status) -> list[str | Text]:
    has_offset, lags = status.offset_id is not None, status.lag_messages > 0
    return [
        status.name, shown(status.state, COLOURS[status.state]), status.owner or "",
        str(status.offset_id) if has_offset else "", str(status.lag_messages) if has_offset else "",
        seconds_text(status.lag_seconds) if lags else "", str(status.delivered), _dead(status), _next_try(status),
    ]  # fmt: skip


def _queue(status: Status) -> list[str | Text]:
    jobs = status.jobs
    assert jobs
    return [
        jobs.queue, shown(status.state, COLOURS[status.state]), status.owner or "", str(jobs.due),
        seconds_text(status.lag_seconds) if jobs.due else "", str(jobs.scheduled), str(jobs.leased), str(jobs.dead),
        str(jobs.workers), _next_try(status),
    ]  # fmt: skip


def _dead(status: Status) -> str:
    return str(status.dead_letters) if status.dead_letters < COUNT_LIMIT else f"{COUNT_LIMIT - 1}+"


def _next_try(status: Status) -> str:
    if status.retry_seconds is None:
        return ""
    return f"in {seconds_text(status.retry_seconds)}" if status.retry_seconds > 0 else "now"


def _why(status: Status, first: Status) -> str:
    """Where reasons stand beside: a long one once, and then who has the same."""
    if status is first or len(status.why) <= _SHORT_REASON:
        return status.why
    return f"as {name_of(first)}"


def _group(found: Sequence[Status], rows: Sequence[Row], width: int) -> Group:
    first = found[0]
    reason = rows[0].below
    if reason and len(found) > 1:
        reason = indented(shown(f"each of these: {first.why}"), width)
    return Group(rank(first), first.name, [row.lines for row in rows], reason)
