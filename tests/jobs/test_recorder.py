"""What the tests of an application do without a database."""

import asyncio
from datetime import date
from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from relay import jobs
from relay.jobs import Context, job
from relay.jobs.errors import BadArguments, HandlerError
from relay.jobs.testing import inline, recorded


def test_recorded_keeps_what_any_thread_enqueues_and_runs_nothing() -> None:
    @job(queue="mail")
    def send(order_id: int, on: date) -> None:
        raise AssertionError("it runs")

    with recorded() as kept:
        first = send.enqueue(None, 1, on=date(2030, 1, 1))
        thread = Thread(target=send.with_options(priority=5).enqueue, args=(None, 2, date(2030, 1, 2)))
        thread.start()
        thread.join()
        asyncio.run(send.enqueue_many_async(None, [{"order_id": n, "on": "2030-01-03"} for n in (3, 4)]))
        jobs.enqueue_http(None, "hooks", "https://shop.example/paid", json={"id": 1})
        jobs.enqueue_celery(None, "old", "shop.tasks.sync", [1], {"deep": True})

        assert [each.payload["order_id"] for each in kept.of(send)] == [1, 2, 3, 4]
        [one] = kept.assert_enqueued(send, on=date(2030, 1, 1))
        assert (one.id, one.queue, one.kind) == (first, "mail", "python")
        assert UUID(first).version == 4
        [two] = kept.assert_enqueued(send, times=1, order_id=2)
        assert two.options["priority"] == 5
        kept.assert_enqueued("shop.example", url="https://shop.example/paid", method="POST", json={"id": 1})
        kept.assert_enqueued("shop.tasks.sync", args=[1], kwargs={"deep": True})
        kept.assert_not_enqueued(send, order_id=9)
        for assertion in (
            lambda: kept.assert_enqueued(send, order_id=9),
            lambda: kept.assert_enqueued(send, times=2),
            lambda: kept.assert_not_enqueued(send),
        ):
            with pytest.raises(AssertionError, match=r"send \{'order_id': 1, 'on': '2030-01-01'\}"):
                assertion()
        with pytest.raises(BadArguments):
            send.enqueue(None, "x", date.max)  # type: ignore[arg-type]
        kept.clear()
        kept.assert_not_enqueued(send)


def test_inline_runs_a_job_where_it_is_enqueued() -> None:
    ran: list[Any] = []

    @job(max_attempts=4)
    def plain(context: Context, on: date) -> None:
        ran.append((context.max_attempts, context.metadata["who"], on))
        context.complete(None, result="nothing is written")

    @job
    async def coroutine(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)
        if number == 3:
            await coroutine.enqueue_async(None, number + 1)

    @job
    def fails() -> None:
        raise KeyError("x")

    async def application() -> None:
        await coroutine.enqueue_async(None, 3)
        coroutine.enqueue(None, 5)  # from a function that is not one, under a loop
        with pytest.raises(KeyError):
            await fails.enqueue_async(None)

    with inline() as kept:
        plain.with_options(delay=60, metadata={"who": "me"}).enqueue(None, on=date(2030, 1, 1))
        coroutine.enqueue(None, 1)
        asyncio.run(application())
        with pytest.raises(HandlerError, match="no handler of that name"):
            jobs.enqueue(None, "mail", "unknown", {"a": 1})
        jobs.enqueue_http(None, "hooks", "https://shop.example/paid")
    assert ran == [(4, "me", date(2030, 1, 1)), 1, 3, 4, 5]
    assert len(kept.jobs) == 8


def test_what_cannot_be_a_request_is_refused() -> None:
    with recorded() as kept:
        cases: list[tuple[str, Any, str]] = [
            ("ftp://shop.example/", {}, "must begin with https://"),
            ("https:///paid", {"name": "paid"}, "must name a host"),
            ("https://shop.example/", {"json": 1, "text": "1"}, "json and text: keep one of them"),
        ]
        for url, options, problem in cases:
            with pytest.raises(jobs.errors.JobError, match=problem):
                jobs.enqueue_http(None, "hooks", url, **options)
        with pytest.raises(BadArguments, match="must be a mapping"):
            jobs.enqueue(None, "mail", "send", [1])  # type: ignore[arg-type]
        with pytest.raises(jobs.errors.BadOptions, match="cannot be that of several"):
            jobs.enqueue_many(None, "mail", "send", [{}, {}], idempotency_key="one")
    assert kept.jobs == []
