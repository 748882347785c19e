"""The memory source: for tests of what stands above the seam, and the measure of the source suite itself.

`log("n").send(...)` is what a producer does; a source of the name `n` receives it, in the same process. A test can
take the log down and stall it; the source then behaves as one whose server does.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from relay.backends.memory.config import MemorySourceConfig
from relay.backends.source import MAX_HELD_BYTES, Source, SourceFeatures
from relay.errors import NotConnected
from relay.models import Received


@dataclass
class Log:
    """The backend: stays when sources come and go, like a server."""

    name: str
    entries: list[Received] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    """Indexes of entries."""
    up: bool = True
    running: threading.Event = field(default_factory=threading.Event)
    """Clear it and the log does not answer until it is set again."""
    news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.running.set()

    def send(self, body: bytes, key: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        with self.news:
            index = len(self.entries)
            message = Received(f"{self.name}/{index}", body, dict(headers or {}), key, self.name)
            self.entries.append(message._replace(partition=self.name, position=str(index), token=index))
            self.news.notify_all()

    def stop(self) -> None:
        with self.news:
            self.up = False
            self.news.notify_all()

    def start(self) -> None:
        self.up = True


_logs: dict[str, Log] = {}


def log(name: str = "default") -> Log:
    return _logs.setdefault(name, Log(name))


def forget(name: str = "default") -> None:
    """Drop the log of this name with everything in it."""
    _logs.pop(name, None)


class MemorySource(Source[MemorySourceConfig, Received]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        has_positions=True, keeps_headers=True, keeps_key=True, one_lane="a log has one position"
    )
    config_model = MemorySourceConfig

    def __init__(self, config: MemorySourceConfig, pipeline: str) -> None:
        self._config = config
        self._where = f"pipeline {pipeline!r}: memory log {self._config.name!r}"
        self._log: Log | None = None
        self._next = 0
        self._skips_acknowledged = False
        self._held: list[int] = []
        """Indexes handed out and not acknowledged, in order."""

    def open(self, positions: Mapping[str, str]) -> None:
        backend = log(self._config.name)
        self._check(backend)
        position = positions.get(backend.name)
        self._next = 0 if position is None else int(position) + 1
        self._skips_acknowledged = position is None
        self._held = []
        self._log = backend

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Received]:
        deadline = time.monotonic() + wait_seconds
        while True:
            backend = self._opened()
            self._check(backend)
            with backend.news:
                found = self._take(backend, max_messages)
                if found or (left := deadline - time.monotonic()) <= 0:
                    return found
                if backend.up and self._log is backend:
                    backend.news.wait(left)

    def convert(self, message: Received) -> Received:
        return message

    def bare(self, message: Received) -> Received:
        return message

    def ack(self, received: Sequence[Received]) -> None:
        backend = self._opened()
        self._check(backend)
        done = {message.token for message in received}
        backend.acknowledged |= done
        self._held = [index for index in self._held if index not in done]

    def release(self) -> None:
        if self._held:
            self._next = self._held[0]
            self._skips_acknowledged = True
        self._held = []

    def close(self) -> None:
        backend, self._log = self._log, None
        self._held = []
        if backend is not None:
            with backend.news:
                backend.news.notify_all()

    def _take(self, backend: Log, max_messages: int) -> list[Received]:
        found: list[Received] = []
        room_bytes = MAX_HELD_BYTES
        while self._next < len(backend.entries) and len(found) < max_messages and room_bytes > 0:
            index = self._next
            self._next += 1
            if not (self._skips_acknowledged and index in backend.acknowledged):
                found.append(backend.entries[index])
                room_bytes -= len(found[-1].body)
                self._held.append(index)
        return found

    def _opened(self) -> Log:
        if self._log is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        return self._log

    def _check(self, backend: Log) -> None:
        if not backend.running.wait(self._config.timeout_ms / 1000):
            raise NotConnected(f"{self._where}: no answer", code="timeout")
        if not backend.up:
            raise NotConnected(f"{self._where}: down")
