"""Cron expressions: when a schedule is due. Pure functions; all times that they return are in UTC.

    minute  hour  day of month  month  day of week        or @hourly, @daily, @weekly, @monthly, @yearly

cronsim reads them, as Debian's cron does, also where clocks change. In spring, a fixed time that the clock leaps over
is due right after the leap. In autumn, a fixed time that comes twice is due once, the first time. With a star in the
minute or the hour (`*/15 * * * *`), each time that the clock shows is due: not at all in spring, twice in autumn.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, takewhile
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from relay.jobs.errors import BadOptions

Missed = Literal["one", "all", "skip"]
"""What becomes of ticks at which no scheduler ran: one job for the last of them, one for each, or none."""

ON_TIME_SECONDS = 60.0
"""A tick that is not later than that was not missed."""
MOST_AT_ONCE = 1000

_FIELDS = 5
_LONGEST_CHARACTERS = 200
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Due(NamedTuple):
    ticks: list[datetime]
    """For each of them a job is due now, in order."""
    next_at: datetime | None
    """The first tick after them; None if there will never be one."""


def check(expression: str, time_zone: str = "UTC") -> None:
    """Raises BadOptions, which says what is wrong."""
    next_tick(expression, time_zone, datetime.now(UTC))


def next_tick(expression: str, time_zone: str, after: datetime, *, seconds: bool = False) -> datetime | None:
    """The first tick later than `after`; None if there will never be one. Raises BadOptions.

    `seconds`: whether it may have a sixth field, of seconds, before the others.
    """
    return next(_ticks(expression, time_zone, after, seconds=seconds), None)


def missed_ticks(
    expression: str, time_zone: str, since: datetime, until: datetime, missed: Missed, at_most: int = MOST_AT_ONCE
) -> list[datetime]:
    """Those ticks from `since`, which is one, to `until` for which a job is due; `all`: the first `at_most` of them.

    Raises BadOptions.
    """
    if since > until:
        return []
    if missed == "all":
        later = takewhile(lambda tick: tick <= until, _ticks(expression, time_zone, since))
        return list(islice(chain([since.astimezone(UTC)], later), at_most))
    last = max(since.astimezone(UTC), _last_tick(expression, time_zone, until) or since)
    is_late = last < until - timedelta(seconds=ON_TIME_SECONDS)
    return [] if missed == "skip" and is_late else [last]


def due(expression: str, time_zone: str, next_at: datetime | None, now: datetime, missed: Missed) -> Due:
    """What a schedule owes whose next tick was to be at `next_at`; None: it is new, and owes nothing yet."""
    ticks = [] if next_at is None else missed_ticks(expression, time_zone, next_at, now, missed)
    # More than one call can take: the rest is due at once.
    behind = missed == "all" and len(ticks) == MOST_AT_ONCE
    return Due(ticks, next_tick(expression, time_zone, ticks[-1] if behind else now))


def _ticks(expression: str, time_zone: str, after: datetime, *, seconds: bool = False) -> Iterator[datetime]:
    """Later than `after`, each later than the one before."""
    last = after.astimezone(UTC)
    # A fixed time of an hour that comes twice is counted by the clock on the wall, which has shown it before.
    for tick in _simulated(expression, time_zone, after, seconds=seconds):
        if tick > last:
            last = tick
            yield tick


def _last_tick(expression: str, time_zone: str, until: datetime) -> datetime | None:
    """The last one that is not later than `until`."""
    # Backwards from beyond an hour that may come twice.
    ticks = _simulated(expression, time_zone, until + timedelta(hours=3), reverse=True)
    return next((tick for tick in ticks if tick <= until), None)


def _simulated(
    expression: str, time_zone: str, start: datetime, *, reverse: bool = False, seconds: bool = False
) -> Iterator[datetime]:
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, LookupError):
        raise BadOptions(f"time zone {time_zone[:80]!r} is not known; name one such as UTC or Europe/Berlin") from None
    fields = _MACROS.get(expression.strip().lower(), expression)
    count = len(fields.split())
    problem = "" if count == _FIELDS or (seconds and count == _FIELDS + 1) else f"it has {count} of {_FIELDS} fields"
    if len(expression) > _LONGEST_CHARACTERS:
        problem = f"it has {len(expression)} characters, and may have {_LONGEST_CHARACTERS}"
    try:
        simulated = CronSim(fields, start.astimezone(zone), reverse=reverse) if not problem else None
    except CronSimError as error:
        problem = str(error).lower()
    if problem or simulated is None:
        raise BadOptions(
            f"{expression[:80]!r} is not a cron expression: {problem}. Write minute, hour, day of month, month and day "
            "of week, such as '*/15 9-17 * * MON-FRI'; or @hourly, @daily, @weekly, @monthly, @yearly"
        )
    return (tick.replace(tzinfo=tick.tzinfo or zone).astimezone(UTC) for tick in simulated)
