"""Publishing on each kind of connection: it is part of the application's transaction, and of nothing else."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import psycopg
import pydantic
import pytest

from relay.errors import NotFound
from relay.outbox import BadValue, Message
from tests.outbox.rows import ROWS, Caller
from tests.services.postgres import Database, PostgresServer

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared(_postgres18: PostgresServer) -> Iterator[Database]:
    """One database for all rows: each test has an outbox of its own."""
    _postgres18.start()
    taken = _postgres18.take_database()
    with taken.connect() as connection:
        connection.execute("create table public.effect (box text)")
    yield taken
    _postgres18.give_back_database(taken)


@pytest.fixture
def look(shared: Database) -> Iterator["psycopg.Connection[Any]"]:
    """Another session."""
    with shared.connect() as connection:
        yield connection


@pytest.fixture
def box(look: "psycopg.Connection[Any]") -> str:
    name = f"box{next(_numbers)}"
    look.execute("select tide.outbox_create(%s)", [name])
    return name


@pytest.fixture(params=ROWS)
def caller(request: pytest.FixtureRequest, shared: Database) -> Iterator[Caller]:
    with ROWS[request.param](shared.url) as opened:
        yield opened


def published(look: Any, box: str) -> list[tuple[Any, ...]]:
    found = look.execute(
        "select m.id, m.key, m.headers, m.payload from tide.message m join tide.outbox o using (outbox_id)"
        " where o.name = %s order by m.id",
        [box],
    )
    return found.fetchall()


def payloads(look: Any, box: str) -> list[Any]:
    return [payload for *_, payload in published(look, box)]


class Colour(Enum):
    RED = "red"


@dataclass
class Line:
    item: UUID
    price: Decimal


class Order(pydantic.BaseModel):
    order: int
    lines: list[Line]
    at: datetime


ITEM = UUID(int=7)
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
WRITTEN = {"item": str(ITEM), "price": "99.50"}


def test_a_message_is_part_of_the_transaction_of_the_caller(caller: Caller, look: Any, box: str) -> None:
    assert caller.publish(box, {"n": 1}, key="k", headers={"type": "t"}) == 1
    assert published(look, box) == []
    undo = caller.savepoint()
    caller.publish(box, "in the savepoint")
    undo()
    caller.publish(box, ["it's", 'a "list"', "\\", None, {"%s": "$1 {é}"}])
    caller.commit()
    assert published(look, box) == [
        (1, "k", {"type": "t"}, {"n": 1}),
        (3, None, {}, ["it's", 'a "list"', "\\", None, {"%s": "$1 {é}"}]),
    ]
    caller.publish(box, "rolled back")
    caller.rollback()
    values = Line(ITEM, Decimal("99.50")), Order(order=1, lines=[Line(ITEM, Decimal("99.50"))], at=NOON)
    assert caller.publish_many(box, [Message({}, key='{"},', headers={"a": [1]}), Message(None), *values]) == [
        5,
        6,
        7,
        8,
    ]
    caller.commit()
    assert published(look, box)[2:] == [
        (5, '{"},', {"a": [1]}, {}),
        (6, None, {}, None),
        (7, None, {}, WRITTEN),
        (8, None, {}, {"order": 1, "lines": [WRITTEN], "at": "2025-03-01T12:00:00Z"}),
    ]


def test_an_error_leaves_the_transaction_as_any_statement_does(caller: Caller, look: Any, box: str) -> None:
    effect = f"insert into public.effect values ('{box}')"
    effects = f"select count(*) from public.effect where box = '{box}'"
    caller.execute(effect)
    undo = caller.savepoint()
    with pytest.raises(NotFound, match=r'^outbox "missing" does not exist\. Create it: select tide\.') as refused:
        caller.publish("missing", {})
    assert refused.value.__cause__ is not None
    with pytest.raises(Exception, match=r"current transaction is aborted|pipeline aborted"):
        caller.execute("select 1")
    undo()
    with pytest.raises(BadValue, match=r"^messages\[1\]\.payload\.price: JSON has no nan"):
        caller.publish_many(box, [1, {"price": float("nan")}])
    caller.publish(box, 1)
    caller.commit()
    assert look.execute(effects).fetchone() == (1,)
    caller.execute(effect)
    with pytest.raises(NotFound):
        caller.publish_many("missing", [{}])
    caller.rollback()
    assert look.execute(effects).fetchone() == (1,)
    assert payloads(look, box) == [1]
