"""What `relay api` says of itself at `/health` and `/ready`."""

import threading
import time

from relay.process.health import health_response, ready_response
from relay.process.http_server import Response
from relay.process.stop import Stop
from relay.web.webhooks.hooks import Hooks
from relay.web.webhooks.writer import Writer


class ApiHealth:
    """Safe from any thread. The public is told no reasons."""

    def __init__(self, hooks: Hooks, writer: Writer, stop: Stop) -> None:
        self._hooks = hooks
        self._writer = writer
        self._stop = stop
        self._threads: list[threading.Thread] = []
        self._started_at = time.monotonic()

    def watch(self, thread: threading.Thread) -> None:
        """One that was started, and that ends before the process is asked to stop only by a bug."""
        self._threads.append(thread)

    def health(self, *, public: bool = False) -> Response:
        facts = {"pipelines": len(self._hooks), "uptime_seconds": int(time.monotonic() - self._started_at)}
        troubles = [reason for reason in (self._hooks.trouble, self._writer.trouble) if reason]
        return health_response(facts, self._failures(), troubles, public=public)

    def ready(self, *, public: bool = False) -> Response:
        """Also while PostgreSQL is away: a sender is then asked to come again, which a load balancer would not do."""
        reasons = self._failures()
        if not self._hooks.loaded.is_set():
            reasons.append(self._hooks.trouble or "the pipelines have not been read yet")
        if self._stop.is_set():
            reasons.append("it is stopping")
        return ready_response(reasons, public=public)

    def _failures(self) -> list[str]:
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        return [] if self._stop.is_set() else [f"the thread {name!r} has ended; the log says why" for name in ended]
