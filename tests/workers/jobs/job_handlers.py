"""Handlers of jobs for tests of real workers. Each writes a line of JSON to the file that `SEEN` names."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from relay.jobs import Context, Discard, Retry, Snooze, job

SEEN = os.environ.get("TEST_JOBS_SEEN", "/dev/null")


def see(what: str, context: Context, **more: Any) -> None:
    line = {"what": what, "id": context.id, "attempt": context.attempt, "pid": os.getpid(), "at": time.monotonic_ns()}
    with open(SEEN, "a", buffering=1) as file:
        file.write(json.dumps(line | more) + "\n")


def may_go() -> bool:
    return Path(f"{SEEN}.go").exists()


def is_first() -> bool:
    """Once: a snooze counts no attempt."""
    mark = Path(f"{SEEN}.snoozed")
    first = not mark.exists()
    mark.touch()
    return first


@job(queue="quick", backoff=0.05, max_attempts=3)
async def note(context: Context, n: int = 0, fails: int = 0) -> int:
    """Fails so many times first."""
    see("note", context, n=n)
    if context.attempt <= fails:
        raise RuntimeError(f"failure {context.attempt}")
    return n


@job(queue="quick", backoff=0.05, max_attempts=2)
async def says(context: Context, text: str, then: str = "return") -> Any:
    """Ends with a text of any characters."""
    see("says", context)
    text = json.loads(f'"{text}"')
    match then:
        case "raise":
            raise ValueError(text)
        case "discard":
            raise Discard(text)
        case "snooze" if is_first():
            raise Snooze(0.05)
        case "retry" if context.attempt == 1:
            raise Retry(0.05, text)
    return text


@job(queue="quick", timeout=1, max_attempts=1)
async def sleeps(context: Context, seconds: float) -> None:
    see("sleeps", context)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        see("sleeps cancelled", context)
        raise


@job(queue="long", timeout=600)
async def waits(context: Context) -> None:
    """Until a file is there."""
    see("begun", context)
    while not may_go():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    see("ended", context)


@job(queue="threads", timeout=600)
def blocks(context: Context, seconds: float) -> None:
    see("begun", context, thread=threading.get_ident())
    time.sleep(seconds)
    see("ended", context)


@job(queue="long", timeout=600)
async def blocks_loop(context: Context, seconds: float) -> None:
    see("begun", context)
    time.sleep(seconds)  # noqa: ASYNC251
    see("ended", context)


@job(queue="processes", timeout=1, max_attempts=1, isolation="process")
def spins(context: Context, forever: bool) -> int:
    see("spins", context)
    while forever:
        pass
    return os.getpid()


@job(queue="threads", timeout=60)
def sees_results(context: Context) -> Any:
    return context.results


@job(queue="processes", timeout=60, isolation="process")
async def sees_results_in_a_process(context: Context) -> Any:
    return context.results


@job(queue="few", timeout=60)
async def counted(context: Context) -> None:
    see("begun", context)
    await asyncio.sleep(0.05)  # so long that none is claimed ahead, and one process leaves some to others
    see("ended", context)


@job(queue="quick", cron="0 0 1 1 *")
def by_the_clock(context: Context) -> None:
    see("by the clock", context, metadata=context.metadata)
