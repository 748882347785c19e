"""What the analysis of a stream table takes and gives: the interface between Python and PostgreSQL.

`Described` is what `tide.stream_describe` answers, `Read` what `tide.stream_read` answers, and a `Plan` is what
`tide.stream_keep` takes. Nothing in a plan is trusted by PostgreSQL: it judges what it keeps.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, Self

VERSION = 1
"""Kept with each plan. A plan of another version is made again."""

MOST_SOURCES = 4
"""With more sources, the sets of changed ones are too many to make all of them at once."""

Kind = Literal["rows", "state"]
Strategy = Literal["linear", "keyed", "two states", "groups", "full"]


class Unsupported(Exception):
    """No incremental refresh is proven for this. The text says why, to a person."""


@dataclass(frozen=True)
class Column:
    """A column; `type` as `format_type` writes it, with its modifiers.

    `deterministic` is false of a collation by which texts that differ can be equal.
    """

    name: str
    type: str
    not_null: bool = False
    hashable: bool = True
    deterministic: bool = True


@dataclass(frozen=True)
class Source:
    """A table that the query reads. `name` has its schema and its quotes.

    `key` are the columns of its primary key, or of a unique key without nulls. `captured` are the columns of
    `tide_stream.d_<oid>` in this stream's refresh, in the order of the table: those that the query reads, and the key.
    """

    oid: int
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] | None
    captured: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """What a function that the query calls is; of several with one name, what any of them is."""

    aggregate: bool
    set_returning: bool


@dataclass(frozen=True)
class Described:
    """What PostgreSQL knows of a stream table.

    `query` is the text of its view, and `views` are the texts of the views below it by their names, both as
    `pg_get_viewdef` writes them with `search_path = pg_catalog`. `reason` says why it is computed at each schedule.
    """

    stream_id: int
    table: str
    columns: tuple[Column, ...]
    query: str
    views: Mapping[str, str]
    sources: tuple[Source, ...]
    functions: Mapping[str, Function]
    reason: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """From the answer of `tide.stream_describe`."""
        return cls(
            stream_id=value["stream_id"],
            table=value["table"],
            columns=tuple(Column(**column) for column in value["columns"]),
            query=value["query"],
            views=value["views"],
            sources=tuple(
                Source(
                    oid=source["oid"],
                    name=source["name"],
                    columns=tuple(Column(**column) for column in source["columns"]),
                    key=tuple(source["key"]) if source["key"] else None,
                    captured=tuple(source["captured"]),
                )
                for source in value["sources"]
            ),
            functions={name: Function(**facts) for name, facts in value["functions"].items()},
            reason=value["reason"],
        )


@dataclass(frozen=True)
class Read:
    """How PostgreSQL reads a SELECT: its text as `pg_get_viewdef` writes it, and its columns."""

    text: str
    columns: tuple[Column, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """From the answer of `tide.stream_read`."""
        return cls(text=value["text"], columns=tuple(Column(**column) for column in value["columns"]))


Reader = Callable[[str], Read]
"""Has PostgreSQL read a SELECT, without running it. Raises Unsupported with what PostgreSQL says against it."""


@dataclass(frozen=True)
class Change:
    """How a refresh finds what differs, for one set of changed sources.

    Of form `rows`, `text` selects the output columns in their order, and `"__w"`: changes by sign, not summed. Of form
    `state` it selects `k0.., n, c0, s0, ..`: changes of the state, by group. A group may occur once only.
    `text` is None for the strategy `full`. `reason` says why it is none of `linear`.
    """

    strategy: Strategy
    form: Kind
    text: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Field:
    """An aggregate of the state: `c<i>` counts the arguments that are not null; a `sum` has a numeric `s<i>` too."""

    kind: Literal["count", "sum"]
    type: str


@dataclass(frozen=True)
class Plan:
    """How a stream table is refreshed.

    `key` names output columns by which rows are unique; None: rows may repeat, and are counted as a whole.
    `exact` names, by source, columns whose equal values may differ in form, such as 1.5 and 1.50, where the query
    shows the difference: net deltas are summed by their text too. `indexes` are lists of columns of the stream table,
    `joins` are the columns, by source, that are compared with columns of other tables: each should have an index.
    `whole` is the state as computed from the sources, `out` the output rows over `tide_stream.s_<id>`; with groups,
    only those with `n > 0` exist.

    A sum that is NaN or infinite, in the state or in a change of it, cannot be added to: that refresh is FULL.
    """

    kind: Kind
    key: tuple[str, ...] | None
    groups: int
    fields: tuple[Field, ...]
    out: str | None
    whole: str | None
    exact: Mapping[int, tuple[str, ...]]
    indexes: tuple[tuple[str, ...], ...]
    sources: frozenset[int]
    _change: Callable[[frozenset[int]], Change] = field(repr=False, compare=False)
    joins: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def change(self, changed: frozenset[int]) -> Change:
        """What a refresh does if these sources changed, and no others; `full` if nothing better is proven."""
        return self._change(changed)

    def changes(self) -> dict[frozenset[int], Change]:
        """For every set of changed sources, if they are few; else for each source alone."""
        sizes = range(1, len(self.sources) + 1) if len(self.sources) <= MOST_SOURCES else (1,)
        sets = (frozenset(some) for size in sizes for some in combinations(sorted(self.sources), size))
        return {some: self.change(some) for some in sets}

    def to_json(self) -> dict[str, Any]:
        """What `tide.stream_keep` takes."""
        return {
            "version": VERSION,
            "kind": self.kind,
            "key": _list(self.key),
            "groups": self.groups,
            "fields": [{"kind": field.kind, "type": field.type} for field in self.fields],
            "out": self.out,
            "whole": self.whole,
            "exact": {str(oid): list(columns) for oid, columns in self.exact.items()},
            "indexes": [list(columns) for columns in self.indexes],
            "joins": {str(oid): list(columns) for oid, columns in self.joins.items()},
            "changes": [
                {
                    "sources": sorted(some),
                    "strategy": change.strategy,
                    "form": change.form,
                    "text": change.text,
                    "reason": change.reason,
                }
                for some, change in self.changes().items()
            ],
        }


def _list(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else list(names)
