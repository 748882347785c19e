"""What the tests of the file source are made of."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.backends.file.config import FileSourceConfig
from relay.backends.file.source import FileSource
from relay.models import Received
from tests.backends.source_steps import Inbox


def make(path: Path, inbox: Inbox | None = None, **keys: Any) -> FileSource:
    """An open source that goes on where the inbox stands."""
    config = FileSourceConfig.model_validate({"path": str(path), "poll_ms": 1, "rotate_wait_ms": 0} | keys)
    source = FileSource(config, "lines")
    source.open(inbox.positions if inbox else {})
    return source


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def read(source: FileSource, inbox: Inbox | None = None, wait: float = 0.05) -> list[str]:
    """Everything until nothing more comes."""
    bodies: list[str] = []
    while received := source.receive(100, wait):
        if inbox is not None:
            inbox.write(received)
        bodies += texts(received)
    return bodies


def texts(received: Sequence[Received]) -> list[str]:
    return [message.body.decode() for message in received]


def numbered(first: int, last: int) -> list[str]:
    return [f'{{"n": {number}}}' for number in range(first, last + 1)]


def older(path: Path, seconds: float) -> None:
    """The file was changed so long ago."""
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))
