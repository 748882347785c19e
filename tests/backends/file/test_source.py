from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.backends.file.source import FileSource
from tests.backends.source_harness import AWKWARD_BODIES, MissingSource, Sent, SourceHarness
from tests.backends.source_suite import SourceSuite


class FileSourceHarness(SourceHarness):
    kind = FileSource
    # A blank line is no message.
    bodies = tuple(body for body in AWKWARD_BODIES if body)

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def config(self) -> dict[str, Any]:
        return {"path": str(self.path), "poll_ms": 5, "rotate_wait_ms": 0}

    def send(self, messages: Sequence[Sent]) -> None:
        with self.path.open("ab") as file:
            file.writelines(message.body + b"\n" for message in messages)

    @contextmanager
    def stall(self) -> Iterator[None]:
        """A file does not stall: this one merely grows no more."""
        yield

    def missing_source(self) -> MissingSource:
        path = str(self.path.with_name("missing.jsonl"))
        return MissingSource(path, {"path": path}, ("create it",))


class TestFileSource(SourceSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SourceHarness:
        return FileSourceHarness(tmp_path / "in.jsonl")
