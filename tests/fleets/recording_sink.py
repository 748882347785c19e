"""A sink that makes visible what happened: each publish appends a line when it begins and a line when it ends.

    dramatiq relay.workers tests.fleets.register_recording_sink

Each pipeline has a file of its own, `<folder>/<pipeline>.jsonl`; what it makes of it is in `tests.faults.audit`.
The clock is CLOCK_MONOTONIC, which all processes of a machine share. `<folder>/<pipeline>.control`, which
`Control` writes, makes the backend slow, takes it down, or makes it refuse messages.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from relay.backends.sink import Features, Sink, SinkConfig
from relay.errors import NotConnected
from relay.models import Failure, Record


@dataclass
class Control:
    """How the backend of one pipeline behaves."""

    down: bool = False
    delay_ms: float = 0
    """How long a publish takes."""
    held: bool = False
    """Whether a publish that has begun waits until this is false, for at most its time limit."""
    refuse: list[int] = field(default_factory=list)
    """Messages that are permanently refused."""
    stop_at: int | None = None
    """A message at which every batch stops for now."""

    def write(self, folder: Path, pipeline: str) -> None:
        """Takes effect with the next publish."""
        path = folder / f"{pipeline}.control"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.rename(path)

    @classmethod
    def read(cls, folder: Path, pipeline: str) -> "Control":
        try:
            return cls(**json.loads((folder / f"{pipeline}.control").read_text()))
        except FileNotFoundError:
            return cls()


class RecordingConfig(SinkConfig):
    folder: str
    label: str = ""
    """Written into every line."""
    token: str = ""
    """A stand-in for credentials: its length is written into every line."""


class RecordingSink(Sink[RecordingConfig]):
    features: ClassVar[Features] = Features()
    config_model = RecordingConfig

    def __init__(self, config: RecordingConfig, pipeline: str) -> None:
        self._config = config
        self._folder = Path(self._config.folder)
        self._pipeline = pipeline
        self._fd: int | None = None
        self._closed = threading.Event()

    def open(self) -> None:
        if Control.read(self._folder, self._pipeline).down:
            raise NotConnected(f"pipeline {self._pipeline!r}: the recording backend is down")
        self._fd = os.open(self._folder / f"{self._pipeline}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._closed.clear()

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if self._fd is None:
            raise NotConnected(f"pipeline {self._pipeline!r}: the recording sink is not open", code="closed")
        control = Control.read(self._folder, self._pipeline)
        ids = [record.id for record in records]
        self._write("begin", ids)
        limit_seconds = self._config.timeout_ms / 1000
        self._closed.wait(min(control.delay_ms / 1000, limit_seconds))
        if control.held:
            control = self._when_let_go(time.monotonic() + limit_seconds)
        if control.down or control.delay_ms / 1000 > limit_seconds:
            self._write("end", [])
            raise NotConnected(f"pipeline {self._pipeline!r}: the recording backend does not answer", code="timeout")
        stop = ids.index(control.stop_at) if control.stop_at in ids else len(ids)
        refused = [index for index in range(stop) if ids[index] in control.refuse]
        self._write("end", [ids[index] for index in range(stop) if index not in refused])
        failures = [Failure(index, True, "refused", "the test refuses it") for index in refused]
        return failures + [Failure(index, False, "not_now", "the test stops here") for index in range(stop, len(ids))]

    def _when_let_go(self, until: float) -> Control:
        """How the backend behaves when it is not held any more, or the time limit is over."""
        while (control := Control.read(self._folder, self._pipeline)).held:
            if time.monotonic() >= until or self._closed.wait(0.01):
                break
        return control

    def close(self) -> None:
        self._closed.set()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, event: str, ids: list[int]) -> None:
        """One line, in one write, with the time at which it was written."""
        line = {
            "event": event,
            "pid": os.getpid(),
            "thread": threading.get_ident(),
            "at_ns": time.monotonic_ns(),
            "label": self._config.label,
            "token_length": len(self._config.token),
            "ids": ids,
        }
        encoded = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if self._fd is not None:
            os.write(self._fd, encoded)
