from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from relay.backends.memory.sink import MemorySink, forget, store
from tests.backends.harness import Harness, Seen
from tests.backends.suite import SinkSuite


class MemoryHarness(Harness):
    kind = MemorySink

    def config(self) -> dict[str, Any]:
        return {"name": "contract"}

    def read_all(self) -> list[Seen]:
        return [Seen(record.body, record.key, record.headers) for record in store("contract").received]

    @contextmanager
    def stall(self) -> Iterator[None]:
        store("contract").running.clear()
        yield
        store("contract").running.set()

    def stop(self) -> None:
        store("contract").up = False

    def start(self) -> None:
        store("contract").up = True


class TestMemory(SinkSuite):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        yield MemoryHarness()
        forget("contract")
