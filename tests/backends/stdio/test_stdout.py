import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from relay.backends.stdio.sink import StdoutSink
from tests.backends.harness import Harness, Seen
from tests.backends.suite import SinkSuite


class PipeSink(StdoutSink):
    """Standard output, were it this pipe."""

    fd: ClassVar[int]


class PipeHarness(Harness):
    kind = PipeSink

    def __init__(self) -> None:
        self._read_end, PipeSink.fd = os.pipe()
        self._reading = threading.Lock()
        self._marks = 0
        self._received = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def config(self) -> dict[str, Any]:
        return {}

    def read_all(self) -> list[Seen]:
        # What was written before this mark has been read once the mark has.
        self._marks += 1
        os.write(PipeSink.fd, b"\0")
        while self._received.count(b"\0") < self._marks:
            threading.Event().wait(0.001)
        lines = bytes(self._received).replace(b"\0", b"").split(b"\n")
        return [Seen(line) for line in lines[:-1] if not torn(line)]

    @contextmanager
    def stall(self) -> Iterator[None]:
        with self._reading:
            yield

    def close(self) -> None:
        os.close(PipeSink.fd)
        self._reader.join()
        os.close(self._read_end)

    def _read(self) -> None:
        while data := os.read(self._read_end, 65536):
            with self._reading:
                self._received += data


def torn(line: bytes) -> bool:
    """Part of a record whose publish failed in the middle, which a pipe cannot take back."""
    try:
        json.loads(line or b"null")
    except ValueError:
        return True
    return False


class TestStdout(SinkSuite):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        harness = PipeHarness()
        yield harness
        harness.close()
