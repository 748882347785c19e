"""How jobs are run in one process, without services: what does not end, and what waits for a slot."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relay.jobs import Context, job
from relay.jobs.models import Claimed
from relay.jobs.registry import handlers, own_handlers
from workers.jobs.queues import Queue
from workers.jobs.runner import STUCK_SECONDS, Runner

LATER = 1000.0


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    with own_handlers():
        yield


def claimed(number: int, name: str) -> Claimed:
    texts = ("{}", None, None, None, None, None, None)
    return Claimed("q", 1, 1, number, 1, "p", name, 0, 30, 3, 0, 0, *texts)


def run(test: Any) -> None:
    async def body() -> None:
        made = Runner(2, 2, handlers(), (), lambda: None)
        try:
            await test(made, Queue("q", 1, 1, "jobs.q"))
        finally:
            made.close()

    asyncio.run(body())


async def until(predicate: Any) -> None:
    deadline = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_a_function_that_does_not_end_is_written_off_and_its_slot_comes_back_when_it_does():
    begun, told, go = threading.Event(), threading.Event(), threading.Event()

    @job
    def deaf(context: Context) -> None:
        begun.set()
        context.cancelled.wait(10)
        told.set()
        go.wait(10)

    async def test(runner: Runner, queue: Queue) -> None:
        runner.add([claimed(1, "deaf")], queue)
        await until(begun.is_set)
        runner.sweep(time.monotonic() + LATER)
        await until(told.is_set)
        assert runner.done == []
        runner.sweep(time.monotonic() + LATER + STUCK_SECONDS)
        [done] = runner.done
        assert (done.ended.outcome, done.ended.code) == ("r", "timeout")
        assert (runner.running, runner.stuck, runner.slots["thread"].free) == (0, 1, 1)
        go.set()
        await until(lambda: runner.stuck == 0)
        assert runner.slots["thread"].free == 2
        assert runner.done == [done]

    run(test)


def test_what_others_have_now_leaves_no_trace_here():
    @job
    async def sleeps() -> None:
        await asyncio.sleep(10)

    async def test(runner: Runner, queue: Queue) -> None:
        runner.add([claimed(number, "sleeps") for number in range(4)], queue)
        assert (runner.running, runner.waiting) == (2, 2)
        await asyncio.sleep(0)
        runner.keep(())
        await until(lambda: runner.running == 0)
        assert (runner.waiting, runner.done) == (0, [])

    run(test)


def test_a_job_that_is_cancelled_before_its_task_has_begun_ends_all_the_same():
    @job
    async def quick() -> None: ...

    async def test(runner: Runner, queue: Queue) -> None:
        runner.add([claimed(number, "quick") for number in range(3)], queue)
        runner.cancel([(1, 0), (1, 2)])  # one that has a slot, and one that waits
        await until(lambda: len(runner.done) == 3)
        assert sorted((done.claimed.id, done.ended.outcome) for done in runner.done) == [(0, "c"), (1, "s"), (2, "c")]

    run(test)
