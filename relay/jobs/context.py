"""What a handler knows of its run."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from relay.database.callers import Arguments, call, call_async
from relay.errors import BadValue
from relay.jobs.errors import BadArguments, LeaseLost, QueueDisabled, job_errors
from relay.jobs.results import result_text

_log = logging.getLogger(__name__)
_running: ContextVar["Running | None"] = ContextVar("tide_job", default=None)


class Flag:
    """As much of a `threading.Event` as a handler needs: a real one for each run is dear, and few wait for it."""

    __slots__ = ("_event", "_is_set")
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._is_set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            if self._event is not None:
                self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or for so many seconds; says whether it is."""
        with self._lock:
            if self._is_set:
                return True
            self._event = event = self._event or threading.Event()
        return event.wait(timeout)


@dataclass(slots=True, eq=False)
class Context:
    """One run of a job. A handler gets it by a parameter of this type, or from `current()`."""

    id: str = ""
    """The UUID of the job: the same in every attempt, so a good idempotency key for what the handler calls."""
    attempt: int = 1
    """Counts from 1."""
    max_attempts: int = 1
    queue: str = "default"
    name: str = ""
    trace_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    deadline: datetime | None = None
    """When the run times out, with time zone."""
    cancelled: Flag = field(default_factory=Flag)
    """Set when the run should end: its time is up, an operator cancelled it, or its worker stops. A coroutine is also
    cancelled; a plain function asks `cancelled.is_set()` between its steps."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """What the jobs returned that this one waited for (`after`), by their UUIDs. Absent is one that has not succeeded,
    and one whose result is not kept: its queue keeps none, or retention has removed it."""
    report: Callable[[str], object] | None = field(default=None, repr=False)
    """Where `progress` goes; by default the log."""
    lease_id: int | None = field(default=None, repr=False)
    number: int = field(default=0, repr=False)
    """The id of the job within its queue. With the lease, what `complete` needs."""
    completed: bool = field(default=False, repr=False)
    """Whether `complete` was called: the job has ended, if the handler committed. Its worker writes the failure of an
    attempt that was not committed, which PostgreSQL ignores if it was."""
    completed_with: str | None = field(default=None, repr=False)
    """The result that `complete` was given, as JSON."""

    def progress(self, text: str) -> None:
        """Says how far the job is: for operators, not for programs. Cheap enough for a loop."""
        if self.report is None:
            _log.info("job %s (%s): %s", self.id, self.name, text)
        else:
            self.report(text)

    def complete(self, connection: Any, result: Any = None) -> None:
        """Ends the job in the transaction of the connection: what the handler writes there happens exactly once.

        The handler commits. If it does not, or the lease has ended, the job is retried; LeaseLost says the latter.
        Outside of a worker, nothing is written.
        """
        arguments = self._completing(result)
        if arguments is not None:
            with _lease_errors(self):
                call(connection, "job_complete", arguments)
        self.completed = True

    async def complete_async(self, connection: Any, result: Any = None) -> None:
        """The same, on an asynchronous connection."""
        arguments = self._completing(result)
        if arguments is not None:
            with _lease_errors(self):
                await call_async(connection, "job_complete", arguments)
        self.completed = True

    def _completing(self, result: Any) -> Arguments | None:
        try:
            text = result_text(result)
        except BadValue as error:
            raise BadArguments(f"job {self.name!r}: {error}") from None
        self.completed_with = text
        if self.lease_id is None:
            return None
        return {
            "lease": ("bigint", self.lease_id),
            "job": ("bigint", self.number),
            "attempt": ("smallint", self.attempt),
            "result": ("jsonb", text),
        }


@contextmanager
def _lease_errors(context: Context) -> Iterator[None]:
    try:
        with job_errors():
            yield
    except QueueDisabled as error:
        raise LeaseLost(f"job {context.name!r} {context.id}: {error}", sqlstate=error.sqlstate) from error.__cause__


Running = Context | Callable[[], Context]
"""The context of a run, or what returns it, always the same: most handlers never ask, and making it is dear."""


def made(running: Running) -> Context:
    return running if isinstance(running, Context) else running()


def current() -> Context | None:
    """The run that calls this, in its thread or task; None outside of any."""
    running = _running.get()
    return None if running is None else made(running)


def enter(running: Running) -> "Token[Running | None]":
    """Makes it `current()`, until `leave`."""
    return _running.set(running)


def leave(token: "Token[Running | None]") -> None:
    _running.reset(token)
