"""What a handler knows of its run."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_log = logging.getLogger(__name__)
_running: ContextVar["Context | None"] = ContextVar("tide_job", default=None)


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
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when the run should end: its time is up, an operator cancelled it, or its worker stops. A coroutine is also
    cancelled; a plain function asks `cancelled.is_set()` between its steps."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """What the jobs returned that this one waited for, by their UUIDs."""
    report: Callable[[str], object] | None = field(default=None, repr=False)
    """Where `progress` goes; the worker sets it."""

    def progress(self, text: str) -> None:
        """Says how far the job is: for operators, not for programs. Cheap enough for a loop."""
        if self.report is None:
            _log.info("job %s (%s): %s", self.id, self.name, text)
        else:
            self.report(text)


def current() -> Context | None:
    """The run that calls this, in its thread or task; None outside of any."""
    return _running.get()


@contextmanager
def running(context: Context) -> Iterator[None]:
    """Makes it `current()`."""
    token = _running.set(context)
    try:
        yield
    finally:
        _running.reset(token)
