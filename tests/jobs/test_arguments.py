"""Arguments go through JSON and come back as the annotations say; what does not is refused before it is sent."""

from __future__ import annotations

import enum
import inspect
import itertools
import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from relay.jobs import Context, job
from relay.jobs.arguments import Arguments
from relay.jobs.errors import BadArguments, HandlerError


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Line:
    sku: str
    price: Decimal


class Order(BaseModel):
    lines: list[Line]
    placed_at: datetime


def every_kind(  # noqa: PLR0917
    context: Context,
    number: int,
    /,
    order: Order,
    line: Line,
    colour: Colour,
    key: UUID,
    at: datetime,
    day: date,
    pause: timedelta,
    amounts: dict[str, Decimal],
    tags: frozenset[str],
    raw: bytes,
    anything: Any,
    *,
    ratio: float = 0.5,
    note: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    return locals()


def test_arguments_of_every_kind_come_back_as_they_were() -> None:
    made = job(every_kind)
    at = datetime.now(UTC)
    given: dict[str, Any] = {
        "order": Order(lines=[Line("a", Decimal("1.10"))], placed_at=at),
        "line": Line("b", Decimal("0.001")),
        "colour": Colour.RED,
        "key": uuid4(),
        "at": at,
        "day": at.date(),
        "pause": timedelta(hours=36, microseconds=1),
        "amounts": {"eur": Decimal("1e-20")},
        "tags": frozenset({"x", "y"}),
        "raw": b"text",
        "anything": [1, None, {"deep": [True, "ü"]}],
        "ratio": float("inf"),
        "added": 3,
    }
    new = made.new_job((7,), given)
    assert "note" not in json.loads(new.payload), "a default is that of the code which runs the job"
    context = Context()
    got = made.run(new.payload, context)
    added = {"more": {"added": given.pop("added")}}
    assert got == {"context": context, "number": 7, "note": None, **given, **added}


@example(text="\\u0000", number=0.0, whole=0)
@example(text="\\\\\0", number=0.0, whole=0)
@given(st.text(), st.floats(allow_nan=False), st.integers(-(10**400), 10**400))
def test_texts_and_numbers_come_back_or_are_refused(text: str, number: float, whole: int) -> None:
    def take(text: str, number: float, whole: int) -> tuple[str, float, int]:
        return text, number, whole

    made = job(name="take")(take)
    try:
        payload = made.new_job((text, number, whole), {}).payload
    except BadArguments:
        assert "\0" in text or not text.isascii()
    else:
        assert "\0" not in text
        assert made.run(payload, Context()) == (text, number, whole)


def test_what_does_not_fit_is_refused_by_its_name_and_without_its_value() -> None:
    def pay(order_id: int, amounts: dict[str, Decimal], note: str = "", anything: Any = None) -> None: ...

    pay_job = job(pay)
    cycle: list[Any] = []
    cycle.append(cycle)
    for args, kwargs, problem in [
        ((), {}, "missing a required argument: 'order_id'"),
        ((1, {}, "", None, 5), {}, "too many positional arguments"),
        ((1, {}), {"total": 3}, "got an unexpected keyword argument 'total'"),
        (("hunter2", {}), {}, "argument 'order_id': Input should be a valid integer"),
        ((1, {"eur": "hunter2"}), {}, "argument 'amounts.eur': Input should be a valid decimal"),
        ((1, {}), {"note": "a\0b"}, "argument 'note': it has the character NUL"),
        ((1, {}), {"anything": {"\0": 1}}, "argument 'anything': it has the character NUL"),
        ((1, {}), {"note": "\ud800"}, "argument 'note'"),
        ((1, {}), {"anything": object()}, "argument 'anything': JSON cannot hold it"),
        ((1, {}), {"anything": cycle}, "argument 'anything': JSON cannot hold it"),
    ]:
        with pytest.raises(BadArguments, match=r"^job 'pay'") as caught:
            pay_job.enqueue(None, *args, **kwargs)  # type: ignore[arg-type]
        assert problem in str(caught.value)
        assert "hunter2" not in str(caught.value)


def positional_only(first: int, /, second: int = 2) -> None: ...
def named_only(first: int, *, second: int) -> None: ...
def plain(first: int, second: int = 2) -> None: ...
def rest(first: int, **others: int) -> None: ...
def nothing() -> None: ...


@pytest.mark.parametrize("function", [positional_only, named_only, plain, rest, nothing])
def test_a_call_is_bound_and_refused_as_python_does_it(function: Any) -> None:
    names = "first", "second", "others"
    calls = [
        (args, dict.fromkeys(keys, 7))
        for args in [(), (1,), (1, 2), (1, 2, 3)]
        for n in range(4)
        for keys in itertools.combinations(names, n)
    ]
    for args, kwargs in calls:
        try:
            bound = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
        except TypeError as error:
            with pytest.raises(BadArguments, match=re.escape(str(error))):
                Arguments("greet", function).bind(args, kwargs)
        else:
            if function is rest:
                bound |= bound.pop("others", {})
            assert Arguments("greet", function).bind(args, kwargs) == bound


def test_what_can_be_written_but_not_read_is_refused_before_it_is_sent() -> None:
    @dataclass
    class Reading:
        value: float

    def take(reading: Reading) -> None: ...

    take.__annotations__["reading"] = Reading
    with pytest.raises(BadArguments, match=r"'reading\.value'"):
        job(take).enqueue(None, Reading(float("nan")))


@dataclass
class Measured:
    value: float | None = None


class Report(BaseModel):
    mean: float | None = None
    rows: list[Measured] = []
    other: Any = None


class OfPython(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float = 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_infinity_and_nan_come_back_or_are_refused(number: float) -> None:
    def take(
        report: Report | None = None,
        measured: Measured | None = None,
        ratio: float | None = None,
        ratios: frozenset[float] = frozenset(),
        anything: Any = None,
        constant: OfPython | None = None,
    ) -> list[Any]:
        return [ratio, *ratios]

    made = job(name="take")(take)
    for values, place in (
        ({"report": Report(mean=number)}, "report.mean"),
        ({"report": Report(rows=[Measured(), Measured(number)])}, "report.rows.1.value"),
        ({"report": Report(other={"a": [1, number]})}, "report.other.a.1"),
        ({"measured": Measured(number)}, "measured.value"),
        ({"anything": number}, "anything"),
        ({"constant": OfPython(value=number)}, "constant.value"),
        ({"anything": {"deep": [Measured(number)]}}, "anything.deep.0.value"),
    ):
        with pytest.raises(BadArguments, match="infinity, or not a number") as caught:
            made.new_job((), values)
        assert f"argument {place!r}: " in str(caught.value)
    got = made.run(made.new_job((), {"ratio": number, "ratios": frozenset({number, 1.0})}).payload, Context())
    assert sorted(map(repr, got)) == sorted(map(repr, [number, number, 1.0]))
    # What only looks like it.
    made.new_job((), {"report": Report(other=["NaN", None]), "anything": "Infinity"})


def test_a_payload_that_does_not_fit_the_handler_any_more_is_refused_when_it_runs() -> None:
    made = job(name="pay")(lambda order_id: None)
    for payload, problem in [
        ('{"order": 1}', "argument 'order_id': Field required"),
        ("[]", "its payload: Input should be an object"),
        ("{", "its payload: Invalid JSON"),
        ('{"order_id": 1, "added": 2}', "argument 'added': Extra inputs are not permitted"),
    ]:
        with pytest.raises(BadArguments, match=f"job 'pay': {problem}"):
            made.run(payload, Context())


def test_a_handler_that_cannot_be_one_says_why() -> None:
    class Session: ...

    def unknown(order: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def unheld(session: Session) -> None: ...

    unheld.__annotations__["session"] = Session

    def twice(one: Context, two: Context) -> None: ...

    cases: list[tuple[Any, str]] = [
        (unknown, "'unknown': an annotation of its handler is unknown: name 'Nowhere'"),
        (unheld, "'unheld': argument 'session' has the type Session, and JSON cannot hold it"),
        (twice, "takes the context twice: one, two"),
    ]
    for function, problem in cases:
        with pytest.raises(HandlerError, match=problem):
            job()(function).arguments.check()
    with pytest.raises(HandlerError, match=r"\*args has no name in the payload"):
        job(lambda *args: None)


def test_a_decimal_of_a_number_has_every_digit_that_postgresql_has() -> None:
    def pay(amount: Decimal, lines: list[Line], rate: float, anything: Any) -> None: ...

    payload = (
        '{"amount": 12345678901234.5678901, "rate": 0.1, "anything": [2.5], "lines": [{"sku": "a", "price": 1.10}]}'
    )
    values = Arguments("pay", pay).from_json(payload)
    assert str(values["amount"]) == "12345678901234.5678901"
    assert str(values["lines"][0].price) == "1.10"
    assert (values["rate"], type(values["rate"]), values["anything"]) == (0.1, float, [2.5])
