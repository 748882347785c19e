"""The contract of a sink, as scenarios. Each backend passes all; one is skipped only by a declared feature.

A backend's test file subclasses `SinkSuite` and gives it a `harness` fixture. `test_broken_fakes.py` shows that
sinks which break the contract fail here.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from relay.errors import ConfigError, NotConnected
from relay.models import Failure, Record
from relay.sinks import Features, Sink
from tests.contract.harness import PIPELINE, Harness, Seen

T = TypeVar("T")

# What "plus a moment" may be on a loaded machine.
MOMENT_SECONDS = 3.0
PATIENCE_SECONDS = 30.0
STALL_TIMEOUT_MS = 300


class SinkSuite:
    def test_bodies_arrive_unchanged(self, harness: Harness) -> None:
        large = 512 * 1024
        bodies = [
            b'{"a": 1}',
            b"",
            '{"ü": "日本語 🚀 \\u0000"}'.encode(),
            b'"' + b"x" * large + b'"',
            b"null",
            b'"\\n"',
        ]
        sent = [record(harness, number, body=body) for number, body in enumerate(bodies, 1)]
        with opened(harness) as sink:
            assert publish(sink, sent) == []
        assert [seen.body for seen in harness.read_all()] == bodies

    def test_keys_arrive_beside_the_body(self, harness: Harness) -> None:
        needs(harness, harness.features.keeps_key, "keeps_key")
        keys = ["a", None, "ключ", "a b"]
        with opened(harness) as sink:
            assert publish(sink, [record(harness, number, key=key) for number, key in enumerate(keys, 1)]) == []
        assert [seen.key for seen in harness.read_all()] == keys

    def test_headers_arrive_beside_the_body(self, harness: Harness) -> None:
        needs(harness, harness.features.keeps_headers, "keeps_headers")
        sent = [
            record(harness, 1, headers={"relay-id": "orders:1", "trace": "00-ab"}),
            record(harness, 2, headers={"name": "Zoë 日本"}),
            record(harness, 3),
        ]
        with opened(harness) as sink:
            assert publish(sink, sent) == []
        for seen, expected in zip(harness.read_all(), sent, strict=True):
            assert seen.headers.items() >= expected.headers.items()

    def test_an_empty_batch_is_delivered_at_once(self, harness: Harness) -> None:
        with opened(harness) as sink:
            assert publish(sink, []) == []
        assert harness.read_all() == []

    def test_batches_arrive_whole_and_in_order(self, harness: Harness) -> None:
        sizes = [1, 250, 1000, 3, 1]
        with opened(harness) as sink:
            first = 1
            for size in sizes:
                assert publish(sink, records(harness, first, size)) == []
                first += size
                # Delivered means delivered now, not by the next call.
                assert len(harness.read_all()) == first - 1
        arrived = numbers(harness)
        assert sorted(arrived) == list(range(1, first))
        if harness.features.ordered:
            assert arrived == sorted(arrived)

    def test_a_sink_may_be_used_by_one_thread_after_the_other(self, harness: Harness) -> None:
        sink = harness.make_sink()
        try:
            within(PATIENCE_SECONDS, sink.open)
            for number in (1, 2):
                sent = [record(harness, number)]
                assert within(PATIENCE_SECONDS, lambda sent=sent: publish(sink, sent)) == []  # type: ignore[misc]
        finally:
            within(PATIENCE_SECONDS, sink.close)
        assert numbers(harness) == [1, 2]

    def test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive(self, harness: Harness) -> None:
        limit = harness.features.largest_record_bytes
        needs(harness, limit is not None, "largest_record_bytes")
        batch = records(harness, 1, 5)
        batch[2] = batch[2]._replace(body=b'"' + b"x" * (limit or 0) + b'"')
        with opened(harness) as sink:
            failures = publish(sink, batch)
            assert [(failure.index, failure.permanent, failure.code) for failure in failures] == [
                (2, True, "too_large")
            ]
            assert publish(sink, records(harness, 6, 1)) == []
        assert numbers(harness) == [1, 2, 4, 5, 6]

    def test_what_is_sent_again_is_suppressed_where_promised(self, harness: Harness) -> None:
        batch = records(harness, 1, 20)
        for _ in range(2):
            with opened(harness) as sink:
                assert publish(sink, batch[:10]) == []
                assert publish(sink, batch) == []
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 21))
        if harness.features.deduplicates:
            assert arrived == list(range(1, 21))

    def test_closing_is_harmless_at_any_time(self, harness: Harness) -> None:
        sink = harness.make_sink()
        within(MOMENT_SECONDS, sink.close)
        sink.open()
        within(MOMENT_SECONDS, sink.close)
        within(MOMENT_SECONDS, sink.close)

    def test_a_sink_that_is_not_open_says_so(self, harness: Harness) -> None:
        sink = harness.make_sink()
        with pytest.raises(NotConnected):
            publish(sink, records(harness, 1, 1))
        with opened(harness) as sink:
            sink.close()
            with pytest.raises(NotConnected):
                publish(sink, records(harness, 1, 1))
        assert harness.read_all() == []

    def test_a_sink_opens_again_after_close_and_over_itself(self, harness: Harness) -> None:
        with opened(harness) as sink:
            assert publish(sink, records(harness, 1, 1)) == []
            sink.open()
            assert publish(sink, records(harness, 2, 1)) == []
            sink.close()
            sink.open()
            assert publish(sink, records(harness, 3, 1)) == []
        assert numbers(harness) == [1, 2, 3]

    def test_closing_leaves_no_thread_and_no_descriptor(self, harness: Harness) -> None:
        with opened(harness) as sink:
            publish(sink, records(harness, 1, 1))
        before = holdings()
        for number in range(2, 5):
            with opened(harness) as sink:
                publish(sink, records(harness, number, 1))
                sink.open()
        assert holdings() == before

    def test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit(self, harness: Harness) -> None:
        batch = records(harness, 1, 500, padding=600)
        with opened(harness, timeout_ms=STALL_TIMEOUT_MS) as sink:
            with harness.stall():
                claimed = within(STALL_TIMEOUT_MS / 1000 + MOMENT_SECONDS, lambda: claims(sink, batch))
                within(STALL_TIMEOUT_MS / 1000 + MOMENT_SECONDS, sink.close)
            assert claimed <= set(numbers(harness))
            deliver(sink, batch)
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 501))
        assert_first_arrivals_in_order(harness, arrived)

    def test_closing_during_a_publish_ends_both(self, harness: Harness) -> None:
        batch = records(harness, 1, 500, padding=600)
        sink = harness.make_sink(timeout_ms=1000)
        sink.open()
        try:
            with harness.stall():
                claimed = start(lambda: claims(sink, batch))
                within(1 + MOMENT_SECONDS, sink.close)
                delivered = claimed(1 + MOMENT_SECONDS)
            assert delivered <= set(numbers(harness))
        finally:
            within(PATIENCE_SECONDS, sink.close)

    def test_a_backend_that_is_down_is_not_connected_and_works_after_reopening(self, harness: Harness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        with opened(harness, timeout_ms=1000) as sink:
            assert publish(sink, records(harness, 1, 1)) == []
            harness.stop()
            try:
                with pytest.raises(NotConnected):
                    within(1 + MOMENT_SECONDS, lambda: publish(sink, records(harness, 2, 5)))
                for never_opened in (sink, harness.make_sink(timeout_ms=1000)):
                    with pytest.raises(NotConnected):
                        within(1 + MOMENT_SECONDS, never_opened.open)
                    never_opened.close()
            finally:
                harness.start()
            sink.open()
            assert publish(sink, records(harness, 2, 5)) == []
        assert set(numbers(harness)) == {1, 2, 3, 4, 5, 6}

    def test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch(self, harness: Harness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        # The claims of publish while the backend goes are what this is about: hence small batches, one after the other.
        with opened(harness, timeout_ms=2000) as sink, Feeder(harness, sink) as feeder:
            feeder.wait_for(delivered=200)
            for trouble in (1, 2):
                harness.stop()
                feeder.wait_for(troubles=trouble)
                harness.start()
                feeder.wait_for(feeder.delivered + 200)
        arrived = numbers(harness)
        assert set(range(1, feeder.delivered + 1)) <= set(arrived), "reported delivered, and missing"
        assert_first_arrivals_in_order(harness, arrived)

    def test_wrong_credentials_are_a_clear_error_for_a_person(self, harness: Harness) -> None:
        needs(harness, harness.features.needs_credentials, "needs_credentials")
        wrong = harness.wrong_credentials()
        sink = harness.make_sink(**wrong, timeout_ms=2000)
        with pytest.raises(ConfigError) as caught:
            within(2 + MOMENT_SECONDS, sink.open)
        within(MOMENT_SECONDS, sink.close)
        assert PIPELINE in str(caught.value)
        assert not any(str(value) in str(caught.value) for value in wrong.values())

    def test_a_missing_destination_is_a_clear_error_or_is_made_when_configured_so(self, harness: Harness) -> None:
        needs(harness, harness.features.needs_destination, "needs_destination")
        missing = harness.missing_destination()
        sink = harness.make_sink(**missing.overrides)
        with pytest.raises(ConfigError) as caught:
            within(MOMENT_SECONDS, sink.open)
        sink.close()
        assert all(name in str(caught.value) for name in (PIPELINE, missing.name, *missing.create))
        with opened(harness, **missing.overrides | missing.create) as sink:
            assert publish(sink, [record(harness, 1)._replace(subject=missing.subject)]) == []


# What the scenarios are made of -------------------------------------------------------------------


def needs(harness: Harness, declared: bool, feature: str) -> None:
    if not declared:
        pytest.skip(f"{harness.kind.__name__} does not declare {feature}")


def record(
    harness: Harness,
    number: int,
    *,
    body: bytes | None = None,
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> Record:
    text = b'{"n": %d}' % number if body is None else body
    return Record(number, f"orders:{number}", harness.subject, key, text, headers or {})


def records(harness: Harness, first: int, count: int, padding: int = 0) -> list[Record]:
    """Records with the numbers from `first`, each of at least `padding` bytes."""
    end = b', "pad": "' + b"x" * padding + b'"}'
    return [record(harness, number, body=b'{"n": %d' % number + end) for number in range(first, first + count)]


def numbers(harness: Harness) -> list[int]:
    """The numbers of all records that a receiver finds, in order of arrival."""
    return [number_of(seen) for seen in harness.read_all()]


def number_of(seen: Seen) -> int:
    return int(json.loads(seen.body)["n"])


def assert_first_arrivals_in_order(harness: Harness, arrived: Sequence[int]) -> None:
    if harness.features.ordered:
        first_arrivals = list(dict.fromkeys(arrived))
        assert first_arrivals == sorted(first_arrivals), "a record came before an earlier one that was not delivered"


@contextlib.contextmanager
def opened(harness: Harness, **overrides: Any) -> Iterator[Sink]:
    sink = harness.make_sink(**overrides)
    try:
        sink.open()
        yield sink
    finally:
        within(PATIENCE_SECONDS, sink.close)


def publish(sink: Sink, batch: Sequence[Record]) -> list[Failure]:
    """`publish`, checked for form: sorted indexes of the batch, each once, with a code and a reason."""
    failures = sink.publish(batch)
    indexes = [failure.index for failure in failures]
    assert indexes == sorted(set(indexes)), "failures are not in order, or twice"
    assert all(0 <= index < len(batch) for index in indexes), "a failure of a record that is not in the batch"
    assert all(failure.code and " " not in failure.code and failure.reason for failure in failures)
    return failures


def claims(sink: Sink, batch: Sequence[Record]) -> set[int]:
    """The ids that one publish reports delivered. Any error but NotConnected escapes."""
    try:
        failed = {failure.index for failure in publish(sink, batch)}
    except NotConnected:
        return set()
    return {record.id for index, record in enumerate(batch) if index not in failed}


def deliver(sink: Sink, batch: Sequence[Record], on_trouble: Callable[[], None] = lambda: None) -> None:
    """As a drain does it, until all are there: from the first temporary failure again, open after NotConnected."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    rest = list(batch)
    while rest:
        assert time.monotonic() < deadline, "the sink did not recover"
        try:
            failures = publish(sink, rest)
            assert not any(failure.permanent for failure in failures)
            rest = rest[failures[0].index :] if failures else []
        except NotConnected:
            on_trouble()
            with contextlib.suppress(NotConnected):
                sink.open()
            threading.Event().wait(0.02)


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of the call, or its exception; an AssertionError if it is not back in time."""
    return start(call)(seconds)


def start(call: Callable[[], T]) -> Callable[[float], T]:
    """Begins the call in a thread. What is returned waits for it, that many seconds, and gives what came of it."""
    outcome: list[Callable[[], T]] = []

    def run() -> None:
        try:
            result = call()
            outcome.append(lambda: result)
        except BaseException as error:  # noqa: BLE001 (raised again by whoever waits)
            outcome.append(lambda error=error: _raise(error))  # type: ignore[misc]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait(seconds: float) -> T:
        thread.join(seconds)
        assert outcome, f"not back after {seconds} s"
        return outcome[0]()

    return wait


def _raise(error: BaseException) -> Any:
    raise error


def holdings() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


class Feeder:
    """Delivers batch after batch in its own thread, and knows how far it came."""

    def __init__(self, harness: Harness, sink: Sink) -> None:
        self._harness = harness
        self._sink = sink
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self.delivered = 0
        self.troubles = 0

    def wait_for(self, delivered: int = 0, troubles: int = 0) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.delivered < delivered or self.troubles < troubles:
            assert self._error is None, f"publish ended with {self._error!r}"
            assert time.monotonic() < deadline, f"{self.delivered} delivered, {self.troubles} troubles"
            self._enough.wait(0.002)

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                deliver(self._sink, records(self._harness, self.delivered + 1, 20), self._count_trouble)
                self.delivered += 20
        except BaseException as error:  # noqa: BLE001 (shown by wait_for)
            self._error = error

    def _count_trouble(self) -> None:
        self.troubles += 1


__all__ = ["Features", "Harness", "Seen", "SinkSuite"]
