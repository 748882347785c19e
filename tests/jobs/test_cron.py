"""When a schedule is due: also where clocks change, and after a time without any scheduler."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from relay.jobs.cron import MOST_AT_ONCE, check, due, missed_ticks, next_tick
from relay.jobs.errors import BadOptions

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=ZoneInfo(BERLIN)), datetime(2026, 10, 25, tzinfo=ZoneInfo(BERLIN))
"""The midnights before clocks go from 2:00 to 3:00, and from 3:00 back to 2:00."""
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def ticks(expression: str, after: datetime, count: int, zone: str = BERLIN) -> list[str]:
    """By the clock on the wall, with its offset."""
    found: list[str] = []
    at: datetime | None = after
    while len(found) < count:
        assert at is not None
        at = next_tick(expression, zone, at)
        assert at is not None and at.tzinfo is UTC
        found.append(at.astimezone(ZoneInfo(zone)).strftime("%d. %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/15 9-17 * * MON-FRI", datetime(2026, 6, 1, 12, 15, tzinfo=UTC)),
        ("@hourly", datetime(2026, 6, 1, 13, tzinfo=UTC)),
        ("@daily", datetime(2026, 6, 2, tzinfo=UTC)),
        ("0 12 1 6 *", datetime(2027, 6, 1, 12, tzinfo=UTC)),  # noon itself is not after noon
        ("0 0 l * *", datetime(2026, 6, 30, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_tick_is_after_the_time(expression: str, expected: datetime) -> None:
    assert next_tick(expression, "UTC", NOON) == expected


def test_in_spring_a_fixed_time_that_is_leapt_over_is_due_right_after() -> None:
    assert ticks("30 2 * * *", SPRING, 2) == ["29. 03:00 +0200", "30. 02:30 +0200"]
    assert ticks("*/30 * * * *", SPRING + timedelta(hours=1), 3) == [
        "29. 01:30 +0100",
        "29. 03:00 +0200",
        "29. 03:30 +0200",
    ]


def test_in_autumn_a_fixed_time_that_comes_twice_is_due_once() -> None:
    assert ticks("30 2 * * *", AUTUMN, 2) == ["25. 02:30 +0200", "26. 02:30 +0100"]
    between = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # the second 2:15: the second 2:30 is still to come
    assert ticks("30 2 * * *", between, 1) == ["26. 02:30 +0100"]
    every = ["25. 02:00 +0200", "25. 02:30 +0200", "25. 02:00 +0100", "25. 02:30 +0100", "25. 03:00 +0100"]
    assert ticks("*/30 * * * *", AUTUMN + timedelta(hours=1, minutes=30), 5) == every


@pytest.mark.parametrize("zone", [BERLIN, "America/Havana", "Africa/Casablanca"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "30 * * * *", "*/20 2 * * *", "0,30 0-3 * * *", "15 1,2 * * SUN"])
def test_the_last_tick_is_the_one_that_was_the_next(expression: str, zone: str) -> None:
    """Looked for backwards, it is found where it was found forwards, on the days on which clocks change."""
    for day in (
        datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 7), (3, 28), (4, 4), (10, 3), (10, 24), (10, 31))
    ):
        known = [day - timedelta(days=9)]
        while known[-1] < day + timedelta(days=2):
            known.append(next_tick(expression, zone, known[-1]))  # type: ignore[arg-type]
        for minutes in range(0, 2 * 24 * 60, 37):
            now = day + timedelta(minutes=minutes)
            assert missed_ticks(expression, zone, known[1], now, "one") == [tick for tick in known if tick <= now][-1:]
            assert next_tick(expression, zone, now) == next(tick for tick in known if tick > now)


def test_a_new_schedule_owes_nothing_until_its_first_tick() -> None:
    assert due("0 13 * * *", "UTC", None, NOON, "all") == ([], NOON + timedelta(hours=1))


def test_what_was_missed_is_due_once_or_each_or_not_at_all() -> None:
    """Every ten minutes; nothing ran from 11:00 to 11:55 and a bit."""
    first, now = NOON - timedelta(hours=1), NOON - timedelta(minutes=4.5)
    each = [first + timedelta(minutes=10 * n) for n in range(6)]
    assert due("*/10 * * * *", "UTC", first, now, "one") == ([each[-1]], NOON)
    assert due("*/10 * * * *", "UTC", first, now, "all") == (each, NOON)
    assert due("*/10 * * * *", "UTC", first, now, "skip") == ([], NOON)
    # A tick that is a little late was not missed.
    assert due("*/10 * * * *", "UTC", first, NOON + timedelta(seconds=20), "skip").ticks == [NOON]


def test_more_than_a_call_can_take_is_due_in_several() -> None:
    first = NOON - timedelta(days=1)
    owed = due("* * * * *", "UTC", first, NOON, "all")
    assert (len(owed.ticks), owed.next_at) == (MOST_AT_ONCE, first + timedelta(minutes=MOST_AT_ONCE))
    rest = due("* * * * *", "UTC", owed.next_at, NOON, "all")
    assert (len(rest.ticks), rest.next_at) == (441, NOON + timedelta(minutes=1))


def test_nothing_is_due_before_its_time() -> None:
    for missed in ("one", "all", "skip"):
        assert due("0 13 * * *", "UTC", NOON + timedelta(hours=1), NOON, missed).ticks == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("61 * * * *", "UTC", "'61 * * * *' is not a cron expression: bad minute"),
        ("* * * *", "UTC", "it has 4 of 5 fields"),
        ("* * * * * *", "UTC", "it has 6 of 5 fields"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("@reboot", "UTC", "it has 1 of 5 fields"),
        ("1," * 150 + "1 * * * *", "UTC", "characters, and may have 200"),
        ("* * * * *", "Mars/Base", "time zone 'Mars/Base' is not known"),
        ("* * * * *", "../../etc/passwd", "is not known"),
        ("* * * * *", "", "is not known"),
    ],
)
def test_what_is_wrong_is_said(expression: str, zone: str, said: str) -> None:
    with pytest.raises(BadOptions) as caught:
        check(expression, zone)
    assert said in str(caught.value)
