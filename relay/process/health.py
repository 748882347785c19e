"""The health of a process: the answers at `/health` and `/ready`, the same for every program.

`/health` tells whether to restart the process: it fails only for what a restart would fix. `/ready` tells whether the
process can do its work now. Reasons are for people, and contain no secret.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from relay.errors import ConfigError, MigrationError, NotConnected
from relay.process.http_server import Response

ANSWER_SECONDS = 3.0
FRESH_SECONDS = 5.0


def health_response(
    facts: Mapping[str, object], failures: Sequence[str], troubles: Sequence[str] = (), *, public: bool = False
) -> Response:
    """`failures` are of the process itself; `troubles` are outside, and no reason to restart it.

    With `public`, the reasons are left out: which database fails, and why, is not disclosed publicly.
    """
    status = "unhealthy" if failures else "degraded" if troubles else "healthy"
    body = {"status": status, **facts} | _told([*failures, *troubles], public)
    return _json(503 if failures else 200, body)


def ready_response(reasons: Sequence[str], *, public: bool = False) -> Response:
    """Ready if there is no reason against it."""
    return _json(503, {"ready": False} | _told(reasons, public)) if reasons else _json(200, {"ready": True})


def _told(reasons: Sequence[str], public: bool) -> dict[str, object]:
    return {"reasons": list(reasons)} if reasons and not public else {}


class Probe:
    """Asks an external server whether it answers: at most every few seconds, and once at a time.

    `ask` raises a RelayError if it does not. However long that takes, `trouble` returns in time.
    """

    def __init__(self, name: str, ask: Callable[[], None]) -> None:
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._trouble: str | None = None
        self._answered_at = -FRESH_SECONDS

    def begin(self) -> None:
        """Asks, unless the last answer is young or is being waited for."""
        with self._lock:
            if self._running is None and time.monotonic() - self._answered_at >= FRESH_SECONDS:
                self._running = threading.Thread(target=self._run, name=f"probe-{self._name}", daemon=True)
                self._running.start()

    def trouble(self, until: float) -> str | None:
        """What is wrong; None if nothing is. Waits for an answer until then, in `time.monotonic()` seconds."""
        with self._lock:
            running = self._running
        if running:
            running.join(max(0.0, until - time.monotonic()))
            if running.is_alive():
                return f"{self._name} does not answer"
        return self._trouble

    def _run(self) -> None:
        trouble: str | None = f"{self._name} could not be checked: the log says why"
        try:
            self._ask()
            trouble = None
        except (NotConnected, ConfigError, MigrationError) as error:
            trouble = str(error)
        finally:
            with self._lock:
                self._trouble, self._answered_at, self._running = trouble, time.monotonic(), None


def troubles(probes: Sequence[Probe]) -> list[str]:
    """What is wrong with any of them. They are asked at the same time."""
    for probe in probes:
        probe.begin()
    until = time.monotonic() + ANSWER_SECONDS
    return [trouble for probe in probes if (trouble := probe.trouble(until))]


def _json(status: int, body: Mapping[str, object]) -> Response:
    return Response(status, "application/json", json.dumps(body, separators=(",", ":")).encode())
