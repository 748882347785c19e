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

MOST_NODES = 99
"""Below one stream table: numbers of stream tables leave room for so many."""

Kind = Literal["rows", "state"]
Strategy = Literal["linear", "keyed", "two states", "groups", "full"]


class Unsupported(Exception):
    """No incremental refresh is proven for this. The text says why, to a person."""


@dataclass(frozen=True)
class Column:
    """A column; `type` as `format_type` writes it, with its modifiers.

    `deterministic` is false of a collation by which texts that differ can be equal. `digits` is how many fractional
    digits each value of a node's numeric has, where that is known and its type does not say it.
    """

    name: str
    type: str
    not_null: bool = False
    hashable: bool = True
    deterministic: bool = True
    digits: int | None = None


@dataclass(frozen=True)
class Source:
    """A table that the query reads. `name` has its schema and its quotes.

    `key` are the columns of its primary key, or of a unique key without nulls. `captured` are the columns of
    `tide_stream.d_<oid>` in this stream's refresh, in the order of the table: those that the query reads, and the key.

    A hidden node is a source of what reads it. It has no oid yet: `oid` is its number, below zero, and its key may be
    null.
    """

    oid: int
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] | None
    captured: tuple[str, ...]

    @property
    def is_node(self) -> bool:
        return self.oid < 0

    @property
    def delta(self) -> str:
        """What stands for its net change, in `tide_stream`."""
        return f"d_n{-self.oid}" if self.is_node else f"d_{self.oid}"


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
    `immediate`: its writers maintain it. `is_ours`: it belongs to the owner of the schema `tide`; hidden nodes do, too.
    """

    stream_id: int
    table: str
    columns: tuple[Column, ...]
    query: str
    views: Mapping[str, str]
    sources: tuple[Source, ...]
    functions: Mapping[str, Function]
    reason: str | None = None
    immediate: bool = False
    is_ours: bool = True

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
            immediate=value["immediate"],
            is_ours=value["is_ours"],
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

    `nodes` are the hidden tables below it, each after those that it reads, and `query` is its query over them.
    `sources` are the tables and nodes that it reads itself.
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
    nodes: tuple["Node", ...] = ()
    query: str | None = None
    joins: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def tables(self) -> frozenset[int]:
        """The tables that it reads, itself or by its nodes."""
        return frozenset(oid for plan in self._plans() for oid in plan.sources if oid > 0)

    def _plans(self) -> list["Plan"]:
        return [*(node.plan for node in self.nodes), self]

    def steps(self, changed: frozenset[int]) -> "list[Step]":
        """What a refresh does, node by node, if these tables changed, and then each node that reads one of them."""
        found = []
        for number, plan in [*((node.number, node.plan) for node in self.nodes), (0, self)]:
            mine = changed & plan.sources
            if mine:
                found.append(Step(number, mine, plan.change(mine)))
                changed |= {-number}
        return found

    def unforeseen(self, changed: frozenset[int]) -> "list[Step]":
        """Those of the steps that are not among the `changes` of their plans: also where a node comes to no change."""
        found = []
        plans = {0: self, **{node.number: node.plan for node in self.nodes}}
        for step in self.steps(changed):
            plan = plans[step.number]
            nodes = sorted(oid for oid in step.changed if oid < 0)
            sets = [step.changed - set(some) for size in range(len(nodes) + 1) for some in combinations(nodes, size)]
            found += [
                Step(step.number, some, plan.change(some)) for some in sets if some and some not in plan.changes()
            ]
        return found

    def strategy(self, changed: frozenset[int]) -> str:
        """The strategies of its steps; `full` if all of them are."""
        return " + ".join(dict.fromkeys(step.change.strategy for step in self.steps(changed)))

    def change(self, changed: frozenset[int]) -> Change:
        """What a refresh does if these sources changed, and no others; `full` if nothing better is proven."""
        return self._change(changed)

    def changes(self) -> dict[frozenset[int], Change]:
        """For every set of changed sources, if they are few; else for each source alone."""
        return {some: self.change(some) for some in subsets(self.sources)}

    def strategies(self) -> dict[frozenset[int], str]:
        """The same of all steps together, for sets of tables."""
        return {some: self.strategy(some) for some in subsets(self.tables)}

    def to_json(self) -> dict[str, Any]:
        """What `tide.stream_keep` takes."""
        return {
            "version": VERSION,
            "query": self.query,
            "reads": sorted(self.sources),
            "nodes": [{**node.plan.to_json(), "number": node.number, "query": node.query} for node in self.nodes],
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


@dataclass(frozen=True)
class Node:
    """A hidden table below a stream table. `query` is what it holds, over tables and the nodes before it.

    Its number is that of the stream table and its place among the nodes: see MOST_NODES.
    """

    number: int
    query: str
    plan: Plan
    width: int
    """How many columns it has: `c0`, `c1` .."""


@dataclass(frozen=True)
class Step:
    """The refresh of a node, or, with number 0, of the stream table over its nodes. `changed` is of what it reads."""

    number: int
    changed: frozenset[int]
    change: Change


def subsets(sources: frozenset[int]) -> list[frozenset[int]]:
    """Sets of sources that may change: all of them if they are few, else each by itself."""
    sizes = range(1, len(sources) + 1) if len(sources) <= MOST_SOURCES else (1,)
    return [frozenset(some) for size in sizes for some in combinations(sorted(sources), size)]


def _list(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else list(names)
