"""Queries in a form that can be followed, where theirs cannot. What they say stays the same."""

from collections.abc import Iterator

from sqlglot import exp

from relay.stream_tables.computed_groups import group_columns
from relay.stream_tables.full_joins import split_full_joins
from relay.stream_tables.not_in import split_not_in
from relay.stream_tables.plan import Described, Source
from relay.stream_tables.shape import Shape


def rewrite(query: exp.Query, sources: dict[str, Source], described: Described, names: Iterator[str]) -> bool:
    """Whether it was a form that is followed without hidden nodes. `sources` gets the new names of tables."""

    def shape(select: exp.Select) -> Shape:
        return Shape(select, sources, described)

    same_sources(sources, split_full_joins(query, names))
    same_sources(sources, split_not_in(query, shape, names))
    return group_columns(query, shape, names)


def same_sources(sources: dict[str, Source], renamed: dict[str, str]) -> None:
    """New names are of the tables that the old ones are of."""
    sources |= {new: sources[old] for new, old in renamed.items() if old in sources}
