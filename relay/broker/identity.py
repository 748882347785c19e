"""Which database's work a broker carries: its identity is in the names of all queues.

So databases may share a Redis or a RabbitMQ, and workers that were left to another database take nothing of this one.
"""

import threading
import time
from collections.abc import Callable

from relay.errors import RelayError

# A database that was restored in place, or that the URL now means, is followed after so long.
READ_SECONDS = 10.0


def name_of(queue_name: str, identity: str) -> str:
    """A queue as RabbitMQ knows it: `tide.<identity>.forward`."""
    return queue_name.replace("tide.", f"tide.{identity}.", 1) if identity else queue_name


class Identity:
    """Reads the identity when it is first needed, and again every so often. Threads may share one."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._known = ""
        self._next_at = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Raises what `read` raises, unless the identity is known already: an outage changes nothing."""
        with self._lock:
            if not self._known or time.monotonic() >= self._next_at:
                try:
                    self._known = self._read()
                except RelayError:
                    if not self._known:
                        raise
                self._next_at = time.monotonic() + READ_SECONDS
            return self._known
