"""What `relay status --watch` shows on a screen: when it looked, and the most urgent that there is room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from relay.cli.base import shown
from relay.cli.status_view import Group, Section, inboxes_of, lines_of, name_of, owners_of, sections_of, summary_of
from relay.cli.tables import folded_lines, indented
from relay.operations.base import seconds_text
from relay.operations.status import Look, Status
from relay.operations.status_order import Rank, grouped, rank

_LEAST_OF_REASON = 3
"""On a low screen, so many lines of a reason are shown at least."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known at one moment."""

    last: Look | None
    """The last look that showed something."""
    trouble: str | None
    """Why nothing newer is known."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Screen:
    """A moment, as large as the terminal that shows it."""

    watched: Watched

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield from screen_lines(self.watched, options.max_width, options.height or options.size.height)


def screen_lines(watched: Watched, width: int, height: int) -> list[Text]:
    """At most so many lines, of at most this width."""
    head = head_lines(watched, width)
    if watched.last is None:
        return head[:height]
    body = _body(watched.last.statuses, width, height - len(head) - 1)
    if watched.trouble:
        for line in body:
            line.stylize("dim")
    return [*head, Text(""), *body][:height]


def head_lines(watched: Watched, width: int) -> list[Text]:
    """The clock, how many are in which state, and what keeps all of them from moving."""
    last = watched.last
    said = [shown(f"{clock_text(last.at)}  {summary_of(last.statuses)}" if last else clock_text(watched.now), "bold")]
    if watched.trouble:
        age = f" This is as it was {seconds_text((watched.now - last.at).total_seconds())} ago." if last else ""
        said.insert(0, shown(f"{clock_text(watched.now)}  No status now: {watched.trouble}.{age}", "bold red"))
    elif last and last.read_only:
        said.append(shown(read_only_text(last.read_only), "bold red"))
    return [line for text in said for line in folded_lines(text, width)]


def read_only_text(why: str) -> str:
    return f"PostgreSQL is read-only, and nothing moves: {why}"


def clock_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _body(statuses: Sequence[Status], width: int, height: int) -> list[Text]:
    if len(statuses) < height:
        lines = lines_of(statuses, width)
        if len(lines) <= height:
            return lines
    return _fitted(statuses, width, height)


# A low screen ------------------------------------------------------------------------------------------------------


def _fitted(statuses: Sequence[Status], width: int, height: int) -> list[Text]:
    """What is urgent as far as there is room, how much more there is, and what is quiet, a line for each state."""
    found = grouped(statuses)
    idle = [status for group in found for status in group if rank(status) is Rank.QUIET]
    quiet = inboxes_of(statuses, width) + _quiet(idle, width)
    urgent = [group for group in found if rank(group[0]) is not Rank.QUIET]
    # Each takes a line at least: of a thousand, no more are laid out than may be shown.
    considered = urgent[: max(0, height)]
    sections = sections_of([status for group in considered for status in group[: max(1, height)]], width)
    room = _Room(sections, width, height - len(quiet))
    sizes = {group[0].name: len(group) for group in considered}
    groups = [(number, group) for number, section in enumerate(sections) for group in section.groups]
    for number, group in sorted(groups, key=lambda one: (one[1].rank, one[0])):
        room.take(number, group, sizes[group.first])
    for left_out in urgent[len(considered) :]:
        room.leave_out(rank(left_out[0]), len(left_out))
    lines = [*room.lines(), *quiet]
    owners = owners_of(statuses, width)
    return [*lines, *owners] if len(lines) + len(owners) <= height else lines


class _Room:
    """The lines of a screen, and what they are given to. One is kept for how much more there is."""

    def __init__(self, sections: Sequence[Section], width: int, height: int) -> None:
        self._sections, self._width = sections, width
        self._most_lines = max(_LEAST_OF_REASON, height // 3)
        self._left = height - 1
        self._taken: dict[int, list[Text]] = {}
        self._more = self._failing = 0
        self._full = False

    def take(self, number: int, group: Group, size: int) -> None:
        """As many rows of a group as there is room for, and its reason; after the first that does not fit, none.

        A large group leaves room for others, whose reason is another.
        """
        head = [] if number in self._taken else self._sections[number].head
        below = self._shortened(group.reason)
        rows = self._rows_within(group, self._most_lines)
        if left_out := size - len(rows):
            below = [*below, *indented(shown(f"{left_out} more like these", "dim"), self._width)]
        lines = [*head, *(line for row in rows for line in row), *below]
        self._full |= len(lines) > self._left
        if self._full:
            self.leave_out(group.rank, size)
        else:
            self._taken.setdefault(number, []).extend(lines)
            self._left -= len(lines)

    def leave_out(self, its_rank: Rank, count: int) -> None:
        self._more += count
        self._failing += count if its_rank <= Rank.FAILING else 0

    def _rows_within(self, group: Group, lines_left: int) -> list[list[Text]]:
        """Its first rows, and one at least."""
        rows = [self._shortened(group.rows[0])]
        for row in group.rows[1:]:
            lines_left -= len(rows[-1])
            if len(row) > lines_left:
                break
            rows.append(row)
        return rows

    def lines(self) -> list[Text]:
        lines = [line for _, taken in sorted(self._taken.items()) for line in taken]
        if self._more:
            failing = f" ({self._failing} failing)" if self._failing else ""
            lines += folded_lines(shown(f"{self._more} more{failing}: relay status", "bold"), self._width)
        return lines

    def _shortened(self, lines: list[Text]) -> list[Text]:
        """A text that would take the whole screen says where the rest of it is."""
        if len(lines) <= self._most_lines:
            return lines
        note = indented(shown("... all of it: relay status NAME", "dim"), self._width)
        return [*lines[: max(1, self._most_lines - len(note))], *note]


def _quiet(statuses: Sequence[Status], width: int) -> list[Text]:
    """One line for each state."""
    named: dict[str, list[str]] = {}
    for status in statuses:
        named.setdefault(status.state, []).append(name_of(status))
    found = [_some(f"{len(names)} {state}: ", sorted(names), width) for state, names in named.items()]
    return [line for text in found for line in folded_lines(text, width)]


def _some(begin: str, names: Sequence[str], width: int) -> Text:
    """As many of the names as one line has room for, and how many more there are."""
    for count in range(min(len(names), width), -1, -1):
        more = len(names) - count
        listed = [*names[:count], *([f"{more} more"] if more else [])]
        line = shown(begin + ", ".join(listed), "dim")
        if line.cell_len <= width or count == 0:
            return line
    raise AssertionError("the last of them returns")
