"""What a handler raised, as the end of its attempt, and how long the next one waits."""

import json
from typing import Any

import pytest

from relay.jobs import Discard, Retry, Snooze, job
from relay.jobs.backoff import LONGEST_SECONDS, of_options, pause_seconds
from relay.jobs.ends import failed, succeeded
from relay.jobs.results import MOST_BYTES
from relay.known_secrets import remember


def work() -> None: ...


def ended(error: BaseException, attempt: int = 1, own: Any = None, **options: Any) -> tuple[Any, ...]:
    end = failed(job(**options)(work), error, attempt, 3, own)
    return end.outcome, end.code, end.error, end.retry_seconds


def test_an_exception_that_no_one_foresaw_is_retried_and_dead_at_the_last_attempt() -> None:
    outcome, code, error, seconds = ended(KeyError("x"), attempt=2)
    assert (outcome, code, error) == ("r", "KeyError", "KeyError: 'x'")
    assert 3.2 <= seconds <= 4.8
    assert ended(KeyError("x"), attempt=3) == ("d", "KeyError", "KeyError: 'x'", None)
    assert ended(KeyError("x"), dead_on=(LookupError,))[0] == "d"


def test_a_handler_says_what_becomes_of_its_job() -> None:
    assert ended(Retry(7, "busy")) == ("r", "retry", "busy", 7)
    assert ended(Retry(7, "busy"), attempt=3) == ("d", "retry", "busy", None)
    assert ended(Retry(), backoff=lambda attempt: 100.0 * attempt, attempt=2)[3] == pytest.approx(200, rel=0.2)
    assert ended(Snooze(7), attempt=3)[::3] == ("b", 7)
    # Nothing else would end a handler that always asks for no pause.
    assert [ended(Snooze(short))[3] for short in (0, -1, 0.05)] == [1, 1, 1]
    assert ended(Discard("no such order")) == ("d", "discarded", "no such order", None)


def test_what_an_application_gives_cannot_break_the_end_of_an_attempt() -> None:
    """A text that PostgreSQL cannot hold, or a pause that it cannot add, would make its job run again without end."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    remember("hunter2")
    assert ended(ValueError("a\0b \ud800 hunter2"))[2] == "ValueError: a\N{REPLACEMENT CHARACTER}b ? ***"
    assert len(ended(ValueError("x" * 9000))[2]) == 2000
    assert ended(Broken())[:3] == ("r", "Broken", "Broken: its text cannot be read")
    for pause in (Retry(float("nan")), Snooze(float("nan")), Retry("soon")):  # type: ignore[arg-type]
        assert ended(pause)[0] == "r"
        assert 1.6 <= ended(pause)[3] <= 2.4
    assert ended(ValueError(), backoff=lambda attempt: 1 / 0)[3] == pytest.approx(2, rel=0.21)
    assert ended(Retry(float("inf")))[3] == LONGEST_SECONDS
    assert ended(Retry(-3))[3] == 0


def test_a_result_that_cannot_be_kept_is_no_failure() -> None:
    assert succeeded({"sum": 3}).result == '{"sum":3}'
    assert succeeded(None).result is None
    for result, problem in [
        (object(), "an object of object is not JSON"),
        ("a\0", "NUL"),
        ("x" * MOST_BYTES, "more than 65536 bytes"),
    ]:
        end = succeeded(result)
        assert (end.outcome, end.result, end.code) == ("s", None, "result_dropped")
        assert problem in str(end.error)


def test_pauses_grow_and_are_never_the_same() -> None:
    middle = [pause_seconds(attempt, draw=lambda: 0.5) for attempt in (1, 2, 3, 9, 10, 10_000)]
    assert middle == [2, 4, 8, 512, 900, 900]
    assert [pause_seconds(1, 10, draw=lambda at=at: at) for at in (0.0, 1.0)] == [8, 12]  # type: ignore[misc]
    assert [pause_seconds(attempt, (1, 5), draw=lambda: 0.5) for attempt in (1, 2, 3)] == [1, 5, 5]


@pytest.mark.parametrize(
    ("options", "backoff"),
    [
        (None, None),
        ({"then": {}}, None),
        ({"backoff": 3}, 3),
        ({"backoff": [1, 2.5]}, [1, 2.5]),
        ({"backoff": "fast"}, None),
        ({"backoff": []}, None),
        ({"backoff": [1, None]}, None),
        ({"backoff": True}, None),
    ],
)
def test_a_job_has_a_backoff_of_its_own(options: Any, backoff: Any) -> None:
    assert of_options(None if options is None else json.dumps(options)) == backoff
