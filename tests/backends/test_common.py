"""What all backends share: the batch, the error table, deadlines, and the types of their keys."""

import time
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms, is_over, left
from relay.backends.common.error_table import ErrorTable
from relay.backends.common.keys import AbsolutePath, Listed, check_template
from relay.backends.common.short_cache import LONGEST, cached_if_short
from relay.backends.kafka.topics import bad_topic
from relay.backends.nats.sink import _subject_problem
from relay.errors import ConfigError, NotConnected
from relay.models import Failure


def batch(size: int, *failures: Failure) -> Batch:
    made = Batch(size)
    made.add(failures)
    return made


REFUSED, LATE = Failure(0, True, "too_large", "big"), Failure(1, False, "timeout", "late")


class TestABatch:
    def test_is_blocked_by_the_first_record_that_failed_for_now(self) -> None:
        assert batch(9, REFUSED).blocked_by is None
        assert batch(9, REFUSED, Failure(5, False, "x", ""), LATE, Failure(7, False, "x", "")).blocked_by == 1

    def test_holds_back_what_comes_later_and_keeps_what_is_known(self) -> None:
        known = Failure(3, True, "bad_subject", "empty")
        made = batch(4, LATE, known)
        made.hold_back_from(1)
        assert made.result() == [LATE, Failure(2, False, "not_sent", "waits for record 1"), known]

    def test_stands_still_when_all_of_it_is_sent_again(self) -> None:
        whole = batch(2, Failure(0, False, "blocked", "alarm"))
        whole.hold_back_from(0)
        with pytest.raises(NotConnected, match="here: alarm") as caught:
            whole.result_unless_stuck("here")
        assert caught.value.code == "blocked"
        assert batch(2, LATE).result_unless_stuck("here") == [LATE]
        assert batch(2, REFUSED, LATE).result_unless_stuck("here") == [REFUSED, LATE]
        with pytest.raises(NotConnected, match="here: a replica"):
            batch(2, Failure(0, False, "read_only", "a replica"), replace(REFUSED, index=1)).result_unless_stuck("here")
        assert batch(0).result_unless_stuck("here") == []

    def test_that_had_no_time_at_all_says_so(self) -> None:
        made = batch(1)
        made.hold_back_from(0)
        with pytest.raises(NotConnected, match="no time left"):
            made.result_unless_stuck("here")


class Lost(Exception):
    answer: Any = None


class LostForLong(Lost):
    pass


TABLE = ErrorTable(
    exceptions={__name__: {"lost": "Lost"}},
    answers={7: "too_large", 8: "no_topic"},
    words={"^certificate": "tls"},
    permanent={"too_large"},
    needs_operator={"tls", "no_topic"},
    answers_of=lambda error: (getattr(error, "answer", None),),
)


def lost(text: str = "", answer: int | None = None) -> Lost:
    error = LostForLong(text)
    error.answer = answer
    return error


class TestAnErrorTable:
    @pytest.mark.parametrize(
        ("error", "verdict"),
        [
            (lost(), (False, "lost")),  # by its base class
            (lost(answer=7), (True, "too_large")),
            (lost(answer=9), (False, "lost")),
            (lost("CERTIFICATE refused", 7), (False, "tls")),
            (lost("bad certificate"), (False, "lost")),
            (TimeoutError(), (False, "timeout")),
            (OSError("gone"), (False, "not_connected")),
        ],
    )
    def test_goes_by_words_then_answers_then_classes(self, error: Exception, verdict: tuple[bool, str]) -> None:
        assert TABLE.verdict(error) == verdict

    @pytest.mark.parametrize(("answer", "kind"), [(7, ConfigError), (8, ConfigError), (None, NotConnected)])
    def test_calls_an_operator_only_while_opening(self, answer: int | None, kind: type[Exception]) -> None:
        assert type(TABLE.translated(lost("x", answer), "here", opening=True)) is kind
        assert type(TABLE.translated(lost("x", answer), "here")) is NotConnected

    def test_shows_no_secret(self) -> None:
        assert "hunter2" not in str(TABLE.translated(lost("redis://u:hunter2@h is gone"), "here"))

    def test_names_what_it_lacks_and_what_it_has_too_much(self) -> None:
        module = ModuleType(__name__)
        module.__dict__.update(Lost=Lost, LostForLong=LostForLong, pytest=pytest)
        assert TABLE.differences(module) == {f"{__name__}.LostForLong"}
        del module.Lost
        assert TABLE.differences(module) == {f"{__name__}.Lost", f"{__name__}.LostForLong"}

    def test_blames_no_record_for_what_an_operator_must_change(self) -> None:
        with pytest.raises(AssertionError):
            ErrorTable(permanent={"a"}, needs_operator={"a"})


def test_a_deadline_that_has_passed_leaves_a_moment() -> None:
    assert 9 < left(in_ms(10_000)) <= 10 and not is_over(in_ms(10_000))
    assert 0 < left(time.monotonic() - 1) < 0.1 and is_over(time.monotonic() - 1)


class Keys(BaseModel):
    path: AbsolutePath = "/"
    listed: Listed = []


def test_keys_of_several_backends_are_checked_in_one_way() -> None:
    assert Keys.model_validate({"listed": "a, b"}).listed == Keys(listed=["a", "b"]).listed == ["a", "b"]
    assert Keys(path="${env:FOLDER}/x").path
    with pytest.raises(ValidationError, match="absolute path"):
        Keys(path="x")
    check_template("{key}-${env:STAGE}", "key")
    with pytest.raises(ValueError, match="nothing"):
        check_template("{nothing}", "key")


def test_a_cache_keeps_no_long_text() -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    cached = cached_if_short(length, size=2)
    short, long = "a" * LONGEST, "a" * (LONGEST + 1)
    assert [cached(text) for text in (short, short, long, long)] == [LONGEST, LONGEST, LONGEST + 1, LONGEST + 1]
    assert asked == [short, long, long]


@pytest.mark.parametrize("subject", ["a." * 80_000 + "*", "." * 160_000, "$" + "ü" * 1500, "a b" * 5000])
def test_a_subject_that_is_too_long_is_not_repeated(subject: str) -> None:
    problem = _subject_problem(subject)
    assert problem is not None
    assert "at most 2048 bytes" in problem
    assert len(problem) < 80


def test_a_topic_that_is_too_long_is_not_repeated_whole() -> None:
    assert len(bad_topic("a" * 160_000) or "") < 400
