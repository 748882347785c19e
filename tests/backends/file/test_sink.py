import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.backends.file.sink import FileSink
from tests.backends.harness import Harness, Seen
from tests.backends.suite import SinkSuite


class FileHarness(Harness):
    kind = FileSink

    def __init__(self, path: Path) -> None:
        self._path = path

    def config(self) -> dict[str, Any]:
        return {"path": str(self._path)}

    def read_all(self) -> list[Seen]:
        *lines, end = self._path.read_bytes().split(b"\n")
        assert end == b"", "a partial line"
        return [Seen(line) for line in lines]

    @contextmanager
    def stall(self) -> Iterator[None]:
        with self._path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            yield


class TestFile(SinkSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FileHarness(tmp_path / "out.jsonl")
