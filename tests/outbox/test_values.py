"""What becomes of a value of Python in a payload, and where an error says that it cannot become anything."""

import json
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pydantic
import pytest

from relay.outbox import BadValue
from relay.outbox.json_values import json_text


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class State(StrEnum):
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Line:
    price: Decimal
    tags: tuple[str, ...] = ()


class Order(pydantic.BaseModel):
    at: datetime
    lines: list[Line]
    tags: set[str]


class Reading(pydantic.BaseModel):
    value: float


Point = namedtuple("Point", "x y")
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1, 2.5, True, None, "é ☃ 🎉 \\u0000"]}, {"a": [1, 2.5, True, None, "é ☃ 🎉 \\u0000"]}),
        ("a text, not JSON: {", "a text, not JSON: {"),
        (2**200, 2**200),
        ([NOON, NOON.replace(tzinfo=None)], ["2025-03-01T12:00:00Z", "2025-03-01T12:00:00"]),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2025-03-01T14:00:00+02:00"),
        ([date(2025, 3, 1), time(12, 30)], ["2025-03-01", "12:30:00"]),
        (Decimal("99.50"), "99.50"),
        ({"id": UUID(int=7)}, {"id": "00000000-0000-0000-0000-000000000007"}),
        ([Colour.RED, Size.LARGE, State.OPEN], ["red", 3, "open"]),
        (Line(Decimal(1), ("a",)), {"price": "1", "tags": ["a"]}),
        (
            Order(at=NOON, lines=[Line(Decimal("1.0"))], tags={"a"}),
            {"at": "2025-03-01T12:00:00Z", "lines": [{"price": "1.0", "tags": []}], "tags": ["a"]},
        ),
        (MappingProxyType({"a": (1, Point(2, 3))}), {"a": [1, [2, 3]]}),
        ({1: "a", State.OPEN: "b"}, {"1": "a", "open": "b"}),
        ([[]] * 2, [[], []]),
    ],
)
def test_values_become_what_a_reader_expects(value: Any, written: Any) -> None:
    assert json.loads(json_text(value, "payload")) == written


@dataclass
class Node:
    children: list[Any] = field(default_factory=list)


def own_child() -> Node:
    node = Node()
    node.children.append({"next": node})
    return node


def deep(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "payload: JSON has no nan"),
        ({"items": [{}, {"price": -float("inf")}]}, "payload.items[1].price: JSON has no -inf"),
        ({"items": [Line(Decimal("nan"))]}, "payload.items[0].price: JSON has no NaN"),
        ([Reading(value=NAN)], "payload[0].value: JSON has no nan"),
        (
            {"a": "\\u0000", "b": ["x\0y"]},
            "payload.b[0]: the text has the character NUL, which PostgreSQL cannot store",
        ),
        ({"a": {"\0": 1}}, "payload.a: a key: the text has the character NUL, which PostgreSQL cannot store"),
        ({"a": "é\ud800"}, "payload.a: the text has half of a surrogate pair, which is no character"),
        (own_child(), "payload.children[0].next: contains itself"),
        ({"tags": {"a"}}, "payload.tags: a set has no order: use sorted(...)"),
        ({"file": b"x"}, "payload.file: bytes are no text: decode them, or use base64"),
        ({(1, 2): 3}, "payload: a key is of tuple: the keys of JSON are texts"),
        (
            {"a b": {"x" * 70: object()}},
            f'payload["a b"]["{"x" * 60}..."]: an object of object is not JSON: use a dict',
        ),
        ({"kind": Line}, "payload.kind: an object of type is not JSON"),
        ({"n": 10**5000}, "payload.n: Exceeds the limit (4300 digits)"),
        (deep(1, 100_000), "payload: nested too deep"),
        (deep(NAN, 200), f"payload{'[0]' * 22}[0...{'[0]' * 50}: JSON has no nan"),
    ],
)
def test_a_value_that_cannot_be_written_is_named_by_its_place(value: Any, text: str) -> None:
    with pytest.raises(BadValue) as refused:
        json_text(value, "payload")
    assert str(refused.value).startswith(text)
    assert isinstance(refused.value, ValueError)
