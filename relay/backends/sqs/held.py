"""What a source has received from SQS and not acknowledged, kept from coming again while it is worked on.

SQS hides a received message for `visibility_timeout`. A batch may be held for longer: PostgreSQL is slow, or one
transaction waits for another. So a thread extends the time of whatever has been held for half of it. Only that thread
can do it in time: the caller may be waiting for its commit. It begins with the first message and ends with `close`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

PER_CALL = 10
_LONGEST_HOLD_SECONDS = 900.0
"""A drain that is not over by then is lost; its messages come again."""
_LONGEST_EXTENSION_SECONDS = 1.0


class Holding:
    """`extend` gets receipt handles, ten at most, and returns those that are hidden again. Safe for several threads."""

    def __init__(self, visibility_seconds: float, extend: Callable[[Sequence[str]], Sequence[str]]) -> None:
        self._half_seconds = visibility_seconds / 2
        self._extend = extend
        self._lock = threading.Lock()
        self._extending = threading.Lock()
        self._held: dict[str, tuple[float, float]] = {}
        """(received, next extension) by receipt handle, in monotonic seconds."""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, handles: Iterable[str]) -> None:
        now = time.monotonic()
        with self._lock:
            self._held.update((handle, (now, now + self._half_seconds)) for handle in handles)
            if self._held and self._thread is None and not self._over.is_set():
                self._thread = threading.Thread(target=self._run, name="sqs-holding", daemon=True)
                self._thread.start()

    def remove(self, handles: Iterable[str]) -> None:
        with self._lock:
            for handle in handles:
                self._held.pop(handle, None)

    def take_all(self) -> list[str]:
        """What is held, in the order in which it came. It is not held any more."""
        # An extension under way must not hide again what is given back after this. It is waited for, but not for long.
        idle = self._extending.acquire(timeout=_LONGEST_EXTENSION_SECONDS)
        try:
            with self._lock:
                handles = list(self._held)
                self._held.clear()
        finally:
            if idle:
                self._extending.release()
        return handles

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._over.wait(self._half_seconds / 4):
            due = self._due()
            for begin in range(0, len(due), PER_CALL):
                if not self._over.is_set():
                    self._extend_now(due[begin : begin + PER_CALL])

    def _due(self) -> list[str]:
        now = time.monotonic()
        with self._lock:
            return [
                handle
                for handle, (received, extension) in self._held.items()
                if extension <= now and now - received < _LONGEST_HOLD_SECONDS
            ]

    def _extend_now(self, due: Sequence[str]) -> None:
        with self._extending:
            with self._lock:
                handles = [handle for handle in due if handle in self._held]
            began = time.monotonic()
            hidden = self._extend(handles) if handles else []
            with self._lock:
                for handle in hidden:
                    if handle in self._held:
                        self._held[handle] = (self._held[handle][0], began + self._half_seconds)
