"""Tables for people, in terminals of any width: nothing is hidden by cutting it off.

What is long stands in the last column of a wide terminal, and below its row in a narrow one. A column for which there
is no room stands there too, with its title. Names and texts are folded; numbers and times are never broken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from relay.cli.base import shown

WIDE = 120
"""From so many columns on, a long text has a column of its own."""
NARROWEST = 12
"""To so many characters a name is folded."""
NARROWEST_LONG = 30
GAP = 2
INDENT = 4

Cell = str | Text


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    number: bool = False
    whole: bool = False
    """It is never broken, as no number is."""
    long: bool = False
    """A text that may have any length. Those are the last columns."""
    minor: bool = False
    """It is the first to make room."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is laid out."""

    lines: list[Text]
    below: list[Text]
    """Long texts, in a terminal that has no room for them beside the row."""


class Layout:
    """Rows of the same columns, laid out for a width."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> None:
        texts = [[cell if isinstance(cell, Text) else shown(cell) for cell in row] for row in rows]
        self._columns, self._width = columns, width
        self._used = [any(row[index].plain for row in texts) for index in range(len(columns))]
        self._natural = [
            max([len(column.title), *(row[index].cell_len for row in texts)]) for index, column in enumerate(columns)
        ]
        self._choose()
        self.head = self._line([shown(columns[index].title, "bold") for index in self._beside])
        self.rows = [self._row(row) for row in texts]

    def _choose(self) -> None:
        """Which columns stand side by side, how wide each is, and which stand below."""
        short = [index for index, column in enumerate(self._columns) if not column.long]
        # Where no row has anything to say, the column only takes room.
        self._long = [index for index, column in enumerate(self._columns) if column.long and self._used[index]]
        self._spilled: list[int] = []
        if self._width >= WIDE and self._least([*short, *self._long]) <= self._width:
            self._beside, self._long = [*short, *self._long], []
        else:
            self._beside = short
        while len(self._beside) > 1 and self._least(self._beside) > self._width:
            minor = [index for index in self._beside[1:] if self._columns[index].minor]
            spilled = minor[0] if minor else self._beside[-1]
            self._beside.remove(spilled)
            self._spilled = sorted([*self._spilled, spilled])
        self._widths = self._shares()

    def _least(self, indexes: Sequence[int]) -> int:
        return sum(map(self._least_of, indexes)) + GAP * (len(indexes) - 1)

    def _least_of(self, index: int) -> int:
        column, natural = self._columns[index], self._natural[index]
        if column.number or column.whole:
            return natural
        return min(natural, NARROWEST_LONG if column.long else max(NARROWEST, len(column.title)))

    def _shares(self) -> dict[int, int]:
        """Each as wide as it needs; what is too much is taken from the widest that can be folded."""
        widths = {index: self._natural[index] for index in self._beside}
        too_much = sum(widths.values()) + GAP * (len(widths) - 1) - self._width
        foldable = [index for index in widths if self._least_of(index) < widths[index]]
        while too_much > 0 and foldable:
            widest = max(foldable, key=widths.__getitem__)
            others = [widths[index] for index in foldable if widths[index] < widths[widest]]
            least = max([self._least_of(widest), *others])
            taken = min(too_much, max(1, widths[widest] - least))
            widths[widest] -= taken
            too_much -= taken
            foldable = [index for index in foldable if self._least_of(index) < widths[index]]
        if too_much > 0:  # one column is left, and even its least is too wide
            widths = {index: max(1, min(width, self._width)) for index, width in widths.items()}
        return widths

    def _row(self, row: Sequence[Text]) -> Row:
        folded = [folded_lines(row[index], self._widths[index]) for index in self._beside]
        empty = Text("")
        lines = [self._line(cells) for cells in zip_longest(*folded, fillvalue=empty)]
        if titled := [self._titled(index, row[index]) for index in self._spilled if row[index].plain]:
            lines += indented(Text(", ").join(titled), self._width)
        below = [line for index in self._long if row[index].plain for line in indented(row[index], self._width)]
        return Row(lines, below)

    def _titled(self, index: int, cell: Text) -> Text:
        return Text.assemble(f"{self._columns[index].title} ", cell)

    def _line(self, cells: Sequence[Text]) -> Text:
        parts = []
        for index, cell in zip(self._beside, cells, strict=True):
            part = cell.copy()
            part.align("right" if self._columns[index].number else "left", self._widths[index])
            parts.append(part)
        line = Text(" " * GAP).join(parts)
        line.rstrip()
        return line


def folded_lines(text: Text, width: int) -> list[Text]:
    """The lines of a text, each of at most this width. A character that is wide takes two columns."""
    if text.cell_len <= width and "\n" not in text.plain:
        return [text]
    lines = [line for part in text.split() for line in part.wrap(_MEASURE, max(2, width), overflow="fold")]
    for line in lines:
        line.rstrip()
    return lines or [Text("")]


def indented(text: Text, width: int) -> list[Text]:
    return [Text.assemble(" " * INDENT, line) for line in folded_lines(text, width - INDENT)]


_MEASURE = Console(width=WIDE, color_system=None)


class Table:
    """Rows with their titles above them, laid out for the width of the terminal that shows them."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._rows: list[Sequence[Cell]] = []

    def add_row(self, *cells: Cell) -> None:
        assert len(cells) == len(self._columns)
        self._rows.append(cells)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._lines(options.max_width)

    def _lines(self, width: int) -> Iterator[Text]:
        layout = Layout(self._columns, self._rows, width)
        yield layout.head
        for row in layout.rows:
            yield from row.lines
            yield from row.below
