"""What the scenarios of the source suite are made of."""

import contextlib
import gc
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relay.backends.source import Source
from relay.errors import NotConnected
from relay.models import Received
from tests.backends.source_harness import Sent, SourceHarness
from tests.backends.steps import Limits, within

T = TypeVar("T")


def needs(harness: SourceHarness, declared: bool, feature: str) -> None:
    if not declared:
        pytest.skip(f"{harness.kind.__name__} does not declare {feature}")


def messages(first: int, count: int, padding: int = 0) -> list[Sent]:
    """Messages with the numbers from `first`, each of at least `padding` bytes."""
    end = b', "pad": "' + b"x" * padding + b'"}' if padding else b"}"
    return [Sent(b'{"n": %d' % number + end) for number in range(first, first + count)]


def number_of(received: Received) -> int:
    return int(json.loads(received.body)["n"])


def numbers(received: Sequence[Received]) -> list[int]:
    return [number_of(message) for message in received]


def assert_in_order(harness: SourceHarness, received: Sequence[Received]) -> None:
    if harness.features.ordered:
        by_partition = defaultdict(list)
        for message in received:
            by_partition[message.partition].append(number_of(message))
        assert all(arrived == sorted(arrived) for arrived in by_partition.values()), "out of order"


class Inbox:
    """What PostgreSQL holds: rows by event id, and the positions that were committed with them."""

    def __init__(self) -> None:
        self.rows: dict[str, Received] = {}
        self.positions: dict[str, str] = {}
        self.repeats = 0
        """How often a message came whose row was there already."""

    def write(self, received: Sequence[Received]) -> None:
        for message in received:
            self.repeats += message.id in self.rows
            self.rows.setdefault(message.id, message)
            if message.partition:
                self.positions[message.partition] = message.position

    def numbers(self) -> list[int]:
        """In order of first arrival."""
        return numbers(list(self.rows.values()))


@contextlib.contextmanager
def opened(harness: SourceHarness, positions: Mapping[str, str] | None = None, **overrides: Any) -> Iterator[Source]:
    """Patient, unless the scenario says otherwise: a loaded machine may take longer than a time limit by default."""
    source = harness.make_source(**{"timeout_ms": int(Limits.patience_seconds * 1000)} | overrides)
    try:
        source.open(positions or {})
        yield source
    finally:
        within(Limits.patience_seconds, source.close)


def receive(source: Source, max_messages: int, wait_seconds: float) -> list[Received]:
    """`receive`, checked for form: no more than asked for, each with an id, none twice, positions where promised."""
    received = source.receive(max_messages, wait_seconds)
    assert len(received) <= max_messages, "more than was asked for"
    ids = [message.id for message in received]
    assert all(ids), "a message without an id"
    assert len(ids) == len(set(ids)), "two messages with one id"
    if source.features.has_positions:
        assert all(message.partition and message.position for message in received), "a message without its position"
    return received


def take(source: Source, count: int, batch: int = 100) -> list[Received]:
    """The next `count` messages, however many receives that takes. Nothing is acknowledged."""
    deadline = time.monotonic() + Limits.patience_seconds
    taken: list[Received] = []
    while len(taken) < count:
        assert time.monotonic() < deadline, f"only {len(taken)} of {count} messages came"
        taken += receive(source, min(batch, count - len(taken)), 1.0)
    ids = [message.id for message in taken]
    assert len(ids) == len(set(ids)), "handed out twice"
    return taken


def store(source: Source, inbox: Inbox, received: Sequence[Received]) -> None:
    """As a drain does it: the rows first, then the acknowledgement."""
    inbox.write(received)
    source.ack(received)


def or_none(call: Callable[[], T]) -> T | None:
    """What the call gives; None where it says NotConnected."""
    try:
        return call()
    except NotConnected:
        return None


def until_it_raises(call: Callable[[], object]) -> None:
    """A lost connection may show a moment later."""
    deadline = time.monotonic() + Limits.patience_seconds
    while time.monotonic() < deadline:
        call()


def peak_growth_bytes(work: Callable[[], None]) -> int:
    """By how much this process grew at most while it worked."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _memory_bytes("VmRSS")
    work()
    return _memory_bytes("VmHWM") - before


def _memory_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


class Drainer:
    """Receives, writes and acknowledges in its own thread; opens again after NotConnected, as the next drain would."""

    def __init__(self, source: Source, inbox: Inbox, batch: int = 20) -> None:
        self._source = source
        self._inbox = inbox
        self._batch = batch
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self.troubles = 0
        self.reasons: list[str] = []

    def wait_for(self, written: int = 0, troubles: int = 0) -> None:
        deadline = time.monotonic() + Limits.patience_seconds
        while len(self._inbox.rows) < written or self.troubles < troubles:
            assert self._error is None, f"the drain ended with {self._error!r}"
            assert time.monotonic() < deadline, f"{len(self._inbox.rows)} written, {self.troubles} troubles"
            self._enough.wait(0.002)

    def __enter__(self) -> "Drainer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(Limits.patience_seconds)

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                self._step()
        except BaseException as error:  # noqa: BLE001 (shown by wait_for)
            self._error = error

    def _step(self) -> None:
        try:
            store(self._source, self._inbox, receive(self._source, self._batch, 0.05))
        except NotConnected as error:
            self.troubles += 1
            self.reasons.append(str(error))
            with contextlib.suppress(NotConnected):
                self._source.open(self._inbox.positions)
            self._enough.wait(0.02)
