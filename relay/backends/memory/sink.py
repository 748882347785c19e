"""The memory sink: for tests of what stands above the seam, and the measure of the contract suite itself.

What a sink of the name `n` delivers is in `store("n").received` of the same process. A test can take the store
down, stall it, and make it refuse records; the sink then behaves as one whose backend does.
"""

import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

from relay.backends.common.batch import Batch
from relay.backends.memory.config import MemorySinkConfig
from relay.backends.sink import Features, Sink
from relay.errors import NotConnected
from relay.models import Failure, Record


class Store:
    """The backend: stays when sinks come and go, like a server."""

    def __init__(self) -> None:
        self.received: list[Record] = []
        self.up = True
        self.running = threading.Event()
        """Clear it and the store does not answer until it is set again."""
        self.running.set()
        self.refuse: Callable[[int, Record], Failure | None] = lambda _index, _record: None
        """Asked for each record with its index in the batch; a Failure that it returns is reported."""


_stores: dict[str, Store] = {}


def store(name: str = "default") -> Store:
    return _stores.setdefault(name, Store())


def forget(name: str = "default") -> None:
    """Drop the store of this name with everything in it."""
    _stores.pop(name, None)


class MemorySink(Sink[MemorySinkConfig]):
    features: ClassVar[Features] = Features(
        keeps_headers=True,
        keeps_key=True,
        largest_record_bytes=1024 * 1024,
    )
    config_model = MemorySinkConfig

    def __init__(self, config: MemorySinkConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._store: Store | None = None

    def open(self) -> None:
        backend = store(self._config.name)
        self._wait(backend)
        self._store = backend

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if self._store is None:
            raise NotConnected(f"pipeline {self._pipeline!r}: the memory sink is not open", code="closed")
        self._wait(self._store)
        batch = Batch(len(records))
        for index, record in enumerate(records):
            failure = self._too_large(index, record) or self._store.refuse(index, record)
            if failure is None:
                self._store.received.append(record)
                continue
            batch.add((failure,))
            if batch.blocked_by is not None:
                # Nothing may overtake a record that is to be sent again.
                batch.hold_back_from(index)
                break
        return batch.result()

    def close(self) -> None:
        self._store = None

    def _wait(self, backend: Store) -> None:
        if not backend.running.wait(self._config.timeout_ms / 1000):
            raise NotConnected(f"pipeline {self._pipeline!r}: memory store does not answer", code="timeout")
        if not backend.up:
            raise NotConnected(f"pipeline {self._pipeline!r}: memory store is down")

    def _too_large(self, index: int, record: Record) -> Failure | None:
        limit = self.features.largest_record_bytes
        if limit is None or len(record.body) <= limit:
            return None
        return Failure(index, True, "too_large", f"{len(record.body)} bytes; this sink takes {limit} at most")
