"""Runs any handler in a test, also one that is a coroutine, also while a loop runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from relay.jobs.context import Context
from relay.jobs.handlers import AnyJob


def run(job: AnyJob, payload: str, context: Context) -> Any:
    """Returns when it has ended."""
    if not job.is_coroutine:
        return job.run(payload, context)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job.run_async(payload, context))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, job.run_async(payload, context)).result()


async def run_async(job: AnyJob, payload: str, context: Context) -> Any:
    return await job.run_async(payload, context) if job.is_coroutine else job.run(payload, context)
