"""What the scenarios of the suite are made of."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from relay.backends.sink import Sink
from relay.errors import NotConnected
from relay.models import Failure, Record
from tests.backends.harness import Harness, Seen

T = TypeVar("T")


class Limits:
    """How long things may take on a loaded machine."""

    moment_seconds = 5.0
    """What "plus a moment" means."""
    patience_seconds = 30.0
    """After which whatever is waited for will not come."""
    redelivery_seconds = 12
    """After which what was lost on its way from the backend comes again by itself. Well above a moment, in which only
    what was given back may come; and well below our patience, within which everything must have come."""


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
    """Patient, unless the scenario says otherwise: a loaded machine may take longer than a time limit by default."""
    sink = harness.make_sink(**{"timeout_ms": int(Limits.patience_seconds * 1000)} | overrides)
    try:
        sink.open()
        yield sink
    finally:
        within(Limits.patience_seconds, sink.close)


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


def deliver(
    sink: Sink,
    batch: Sequence[Record],
    on_trouble: Callable[[], None] = lambda: None,
    patience_seconds: float | None = None,
) -> None:
    """As a drain does it, until all are there: from the first temporary failure again, open after NotConnected."""
    deadline = time.monotonic() + (patience_seconds or Limits.patience_seconds)
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
        except BaseException as error:  # noqa: BLE001 (raised again by the waiting thread)
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
        deadline = time.monotonic() + Limits.patience_seconds
        while self.delivered < delivered or self.troubles < troubles:
            assert self._error is None, f"publish ended with {self._error!r}"
            assert time.monotonic() < deadline, f"{self.delivered} delivered, {self.troubles} troubles"
            self._enough.wait(0.002)

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(Limits.patience_seconds)

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                batch = records(self._harness, self.delivered + 1, 20)
                # It may be in hand while a server ends and starts, which takes its time; `wait_for` judges the rest.
                deliver(self._sink, batch, self._count_trouble, 3 * Limits.patience_seconds)
                self.delivered += 20
        except BaseException as error:  # noqa: BLE001 (shown by wait_for)
            self._error = error

    def _count_trouble(self) -> None:
        self.troubles += 1
