"""One run of one job: from what was claimed to what became of it."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from relay.jobs.backoff import of_options, pause_seconds
from relay.jobs.context import Context
from relay.jobs.ends import error_text, failed, succeeded
from relay.jobs.handlers import AnyJob
from relay.jobs.models import Claimed, Ended
from relay.process.unforeseen import log_bug
from relay.reasons import reason_of
from workers.jobs.queues import Queue
from workers.jobs.slots import Way

Reason = Literal["timeout", "cancelled", "stopping", "lost"]
"""Why a run was told to end: its time is over; an operator cancelled it; the worker stops; it is another worker's."""

HANDED_BACK = Ended("b")
SUCCEEDED = Ended("s")
"""Of a handler that returned nothing: most."""


@dataclass(slots=True, eq=False)
class Run:
    """A job that a slot runs."""

    claimed: Claimed
    queue: Queue
    way: Way
    began_at: float
    """`time.monotonic()` seconds, as the next."""
    ends_at: float
    handler: AnyJob | None = None
    task: "asyncio.Task[None] | None" = None
    reason: Reason | None = None
    told_at: float = 0.0
    """When it was told to end."""
    over: bool = False
    """Its end is known: what it still does changes nothing."""
    has_begun: bool = False
    kill: Callable[[], None] | None = field(default=None, repr=False)
    """Ends the process that it runs in."""
    made: Context | None = None

    def context(self) -> Context:
        """Made when the handler or its middleware asks for it. In the thread or task of the handler."""
        if self.made is None:
            self.made = make_context(self.claimed, self.ends_at - time.monotonic())
            if self.reason is not None:  # told between these lines
                self.made.cancelled.set()
        return self.made

    def tell(self, reason: Reason) -> None:
        """Asks it to end; for a coroutine, which is cancelled, that is more than asking. In the loop only."""
        if self.reason is not None:
            return
        self.reason, self.told_at = reason, time.monotonic()
        if self.made is not None:
            self.made.cancelled.set()
        if self.task is not None and self.has_begun:
            self.task.cancel()
        if self.kill is not None:
            self.kill()

    def interrupted(self) -> Ended:
        """What became of it, as it was told to end, and did, or never will."""
        return interrupted(self.claimed, self.reason or "stopping", self.handler)


def make_context(claimed: Claimed, seconds_left: float) -> Context:
    return Context(
        id=claimed.uuid,
        attempt=claimed.attempt,
        max_attempts=claimed.max_attempts,
        queue=claimed.queue,
        name=claimed.name,
        trace_id=claimed.trace_id,
        headers=json.loads(claimed.headers) if claimed.headers else {},
        metadata=json.loads(claimed.metadata) if claimed.metadata else {},
        deadline=datetime.now(UTC) + timedelta(seconds=seconds_left),
        results=json.loads(claimed.results) if claimed.results else {},
        lease_id=claimed.lease_id,
        number=claimed.id,
    )


async def run_coroutine(run: Run) -> Ended:
    """Runs a handler in the loop. Raises nothing."""
    assert run.handler is not None
    try:
        result = await run.handler.run_async(run.claimed.payload, run.context)
        return returned(run.handler, run.made, run.claimed, result)
    except asyncio.CancelledError as error:
        if run.reason is not None:
            return run.interrupted()
        return _failed(run, error)  # the handler's own: one of its tasks was cancelled
    except BaseException as error:  # noqa: BLE001  what a handler raises is its outcome, also SystemExit
        return _failed(run, error)


def run_function(run: Run) -> Ended:
    """The same for a plain function, in a thread."""
    assert run.handler is not None
    try:
        result = run.handler.run(run.claimed.payload, run.context)
        return returned(run.handler, run.made, run.claimed, result)
    except BaseException as error:  # noqa: BLE001
        return _failed(run, error)


def returned(handler: AnyJob, context: Context | None, claimed: Claimed, result: object) -> Ended:
    """The handler came to its end. If it completed its job in a transaction of its own, that one decides: committed,
    the job has succeeded, whatever is said here; rolled back, it has not."""
    if context is not None and context.completed:
        text = "the handler completed the job in a transaction that was not committed"
        if claimed.attempt >= claimed.max_attempts:
            return Ended("d", "not_committed", text)
        pause = handler.pause_seconds(claimed.attempt, of_options(claimed.options))
        return Ended("r", "not_committed", text, retry_seconds=pause)
    return SUCCEEDED if result is None else succeeded(result)


def settle(claimed: Claimed, ended: Ended) -> Ended:
    """What is to be retried is dead at its last attempt, and has a pause."""
    if ended.outcome != "r":
        return ended
    if claimed.attempt >= claimed.max_attempts:
        return _with(ended, "d", None)
    if ended.retry_seconds is None:
        return _with(ended, "r", pause_seconds(claimed.attempt, of_options(claimed.options)))
    return ended


async def run_request(run: Run) -> Ended:
    """Sends the request of an HTTP job. Raises nothing."""
    assert run.queue.http is not None
    try:
        return settle(run.claimed, await run.queue.http.send(run.claimed, run.ends_at))
    except asyncio.CancelledError:
        return run.interrupted()
    except Exception as error:  # noqa: BLE001
        log_bug("bug in an HTTP job", error, job=run.claimed.uuid)
        return unforeseen(run.claimed, error)


def interrupted(claimed: Claimed, reason: Reason, handler: AnyJob | None = None) -> Ended:
    """A run that did not end by itself. One whose time is over has failed, as by an exception."""
    if reason == "cancelled":
        return Ended("c", "cancelled")
    if reason != "timeout":
        return HANDED_BACK
    text = f"it did not end within {claimed.timeout_seconds} s"
    if claimed.attempt >= claimed.max_attempts:
        return Ended("d", "timeout", text)
    own = of_options(claimed.options)
    pause = handler.pause_seconds(claimed.attempt, own) if handler else pause_seconds(claimed.attempt, own)
    return Ended("r", "timeout", text, retry_seconds=pause)


def unforeseen(claimed: Claimed, error: BaseException) -> Ended:
    """A bug of ours met this job: it is retried."""
    return settle(claimed, Ended("r", "internal", error_text(f"{type(error).__name__}: {reason_of(error)}")))


def _failed(run: Run, error: BaseException) -> Ended:
    assert run.handler is not None
    claimed = run.claimed
    return failed(run.handler, error, claimed.attempt, claimed.max_attempts, of_options(claimed.options))


def _with(ended: Ended, outcome: Any, retry_seconds: float | None) -> Ended:
    return Ended(outcome, ended.code, ended.error, ended.response_status, ended.preview, ended.result, retry_seconds)
