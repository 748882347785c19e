"""What `relay status --watch` shows on a screen: when it looked, and the most urgent that there is room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from relay.cli.base import shown
from relay.cli.status_view import Group, Section, lines_of, owners_of, sections_of, summary_of
from relay.cli.tables import folded_lines, indented
from relay.operations.base import seconds_text
from relay.operations.status import Look, Status
from relay.operations.status_order import Rank

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
    statuses = watched.last.statuses
    body = lines_of(statuses, width)
    if len(head) + 1 + len(body) > height:
        body = _fitted(statuses, width, height - len(head) - 1)
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


# A low screen ------------------------------------------------------------------------------------------------------


def _fitted(statuses: Sequence[Status], width: int, height: int) -> list[Text]:
    """What is urgent as far as there is room, how much more there is, and what is quiet, a line for each state."""
    sections = sections_of(statuses, width)
    groups = [(number, group) for number, section in enumerate(sections) for group in section.groups]
    quiet = _quiet([group for _, group in groups if group.rank is Rank.QUIET], width)
    room = _Room(sections, width, height - len(quiet))
    for number, group in sorted(groups, key=lambda found: (found[1].rank, found[0])):
        if group.rank is not Rank.QUIET:
            room.take(number, group)
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

    def take(self, number: int, group: Group) -> None:
        """As many rows of a group as there is room for, and its reason; after the first that does not fit, none."""
        head = [] if number in self._taken else self._sections[number].head
        reason = self._shortened(group.reason)
        rows = self._rows_within(group, self._left - len(head) - len(reason))
        if rows:
            lines = [*head, *(line for row in rows for line in row), *reason]
            self._taken.setdefault(number, []).extend(lines)
            self._left -= len(lines)
        if left_out := len(group.rows) - len(rows):
            self._more += left_out
            self._failing += left_out if group.rank <= Rank.FAILING else 0

    def _rows_within(self, group: Group, lines_left: int) -> list[list[Text]]:
        rows: list[list[Text]] = []
        if self._more:
            return rows
        for whole in group.rows:
            row = self._shortened(whole)
            lines_left -= len(row)
            if lines_left < 0:
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


def _quiet(groups: Sequence[Group], width: int) -> list[Text]:
    """One line for each state."""
    named: dict[str, list[str]] = {}
    for group in groups:
        named.setdefault(group.state, []).extend(group.names)
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
