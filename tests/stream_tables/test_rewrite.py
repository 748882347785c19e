"""Texts that PostgreSQL never writes, and that would be read otherwise than it reads them: they are refused."""

from itertools import count

import pytest
from sqlglot import exp

from relay.stream_tables import Unsupported
from relay.stream_tables.dialect import parse, write
from relay.stream_tables.full_joins import split_full_joins
from relay.stream_tables.sides import both_sides
from relay.stream_tables.trees import union_all


def names():
    return (f"g{number}" for number in count(1))


def query(text: str) -> exp.Query:
    tree = parse(text)
    assert isinstance(tree, exp.Query)
    return tree


def operation(text: str) -> exp.SetOperation:
    tree = parse(text)
    assert isinstance(tree, exp.SetOperation)
    return tree


def split(text: str) -> str:
    tree = query(text)
    split_full_joins(tree, names())
    return write(tree)


def test_a_comma_binds_less_than_a_full_join():
    with pytest.raises(Unsupported, match="comma"):
        split("select a.x from a, b full join c on b.x = c.x")
    assert "FULL" not in split("select a.x from a, (b full join c on b.x = c.x)")
    assert "FULL" not in split("select a.x from b full join c on b.x = c.x, a")


def test_a_full_join_does_not_refer_to_what_is_beside_it():
    lateral = "select a.x from a cross join (b full join lateral (select s.x from s where s.y = {}.y) c on b.x = c.x)"
    with pytest.raises(Unsupported, match="beside"):
        split(lateral.format("a"))
    assert "FULL" not in split(lateral.format("s"))


def test_set_operations_are_of_the_left_or_in_parentheses():
    both_sides(operation("select 1 except select 2 except select 3"), names())
    both_sides(operation("select 1 except (select 2 except select 3)"), names())
    tree = operation("select 1 except select 2")
    tree.set("expression", union_all([query("select 2"), query("select 3")]))
    with pytest.raises(Unsupported, match="order"):
        both_sides(tree, names())
