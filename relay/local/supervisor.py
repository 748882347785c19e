"""Keeps servers and programs running: one that dies is started again, after a pause that grows while it keeps dying."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from relay.errors import RelayError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# A part that ran for so long was healthy: the next pause is the first again.
HEALTHY_SECONDS = 60.0


class Part(Protocol):
    """A server or a program of ours."""

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        ...

    def start(self) -> Any: ...

    def stop(self) -> None: ...


@dataclass(slots=True)
class Supervised:
    """A part that is started again when it dies."""

    name: str
    part: Part
    tell: Callable[[str], None]
    """Gets a line whenever the part has died."""
    pause_seconds: float = FIRST_PAUSE_SECONDS
    started_at: float = 0.0
    start_at: float | None = None
    """When it is to be started again; None while it runs."""

    def start(self) -> None:
        """Raises RelayError if it cannot be started."""
        self.started_at, self.start_at = time.monotonic(), None
        self.part.start()

    def check(self) -> None:
        """To be called every moment."""
        now = time.monotonic()
        if self.start_at is not None:
            if now >= self.start_at:
                self._start_again()
        elif self.part.pid is None:
            if now - self.started_at > HEALTHY_SECONDS:
                self.pause_seconds = FIRST_PAUSE_SECONDS
            self._later("has ended")

    def _start_again(self) -> None:
        try:
            self.start()
        except RelayError as error:
            self._later(f"cannot be started: {error}")

    def _later(self, what: str) -> None:
        self.tell(f"{self.name} {what}; restarting it in {self.pause_seconds:.0f} s")
        self.start_at = time.monotonic() + self.pause_seconds
        self.pause_seconds = min(LONGEST_PAUSE_SECONDS, self.pause_seconds * 2)
