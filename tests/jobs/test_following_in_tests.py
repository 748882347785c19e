"""What follows jobs, in the tests of an application without a database."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from relay import jobs
from relay.jobs import Context, job
from relay.jobs.errors import HandlerError, UnknownReference
from relay.jobs.handlers import AnyJob
from relay.jobs.testing import Recorder, inline, recorded

Ran = list[Any]


@dataclass
class App:
    load: AnyJob
    report: AnyJob
    bad: AnyJob
    ran: Ran


@pytest.fixture
def app() -> App:
    ran: Ran = []

    @job
    def load(part: int) -> None:
        ran.append(part)

    @job
    async def report(context: Context, on: str = "") -> None:
        await asyncio.sleep(0)
        ran.append((on, context.trace_id, context.metadata, context.max_attempts))

    @job
    def bad() -> None:
        raise KeyError("x")

    return App(load, report, bad, ran)


def test_recorded_keeps_what_would_follow(app: App) -> None:
    with recorded() as kept:
        with jobs.batch(None, on_complete=app.report.template("a")) as number:
            first = app.load.with_options(batch=number, then=app.report.template("b")).enqueue(None, 1)
            app.load.with_options(after=[first], run_if="ended").enqueue(None, 2)
        asyncio.run(batch_of(app, fails=False))
        with pytest.raises(UnknownReference, match="job 'load': batch 1 takes no jobs: it is closed"):
            app.load.with_options(batch=number).enqueue(None, 3)
        with pytest.raises(UnknownReference, match="batch 9 was not made in this context"):
            jobs.batch_close(None, 9)
        is_open = jobs.batch_create(None, on_success=app.report.template("c"))
        app.load.with_options(batch=99).enqueue(None, 4)  # of another process, perhaps
    one, two, *_ = kept.assert_enqueued(app.load)
    assert [(each["name"], each["payload"]) for each in one.member("then")] == [("report", {"on": "b"})]
    assert (one.member("batch"), two.member("after"), two.member("run_if")) == (number, [first], "ended")
    assert (two.member("then"), kept.of(app.report), app.ran) == (None, [], [])
    [callback] = kept.batches[number].on_complete
    assert (callback["name"], callback["payload"], kept.batches[number].closed) == ("report", {"on": "a"}, True)
    assert (len(kept.batches[is_open].on_success), kept.batches[is_open].closed) == (1, False)


async def batch_of(app: App, *, fails: bool) -> None:
    """The twins, in a loop."""
    async with jobs.batch_async(
        None, on_success=app.load.template(8), on_complete=[app.report.template("done"), app.load.template(9)]
    ) as number:
        await app.load.with_options(batch=number).enqueue_async(None, 7)
        if fails:
            with pytest.raises(KeyError):
                await app.bad.with_options(batch=number).enqueue_async(None)


def test_inline_runs_what_follows(app: App) -> None:
    with inline() as kept:
        last = app.report.with_options(trace_id="t", metadata={"a": 1}, max_attempts=3, delay=60).template("b")
        then = [app.load.with_options(then=last).template(2), app.load.template(3)]
        app.load.with_options(then=then).enqueue(None, 1)
        assert app.ran == [1, 2, ("b", "t", {"a": 1}, 3), 3]
        assert [each.payload for each in kept.of(app.load)] == [{"part": 1}, {"part": 2}, {"part": 3}]
        app.ran.clear()
        with pytest.raises(KeyError):
            app.bad.with_options(then=app.load.template(4)).enqueue(None)
        assert app.ran == []


def test_modes_know_how_far_a_batch_is(app: App) -> None:
    def progress(number: int) -> Any:
        found = jobs.batch_get(None, number)
        assert found is not None and found == asyncio.run(jobs.batch_get_async(None, number))
        return found.closed, found.unfinished, found.succeeded, found.failed, found.ended_at is not None

    for mode, filled, ended in (
        (recorded, (False, 2, 0, 0, False), (True, 2, 0, 0, False)),
        (inline, (False, 0, 1, 1, False), (True, 0, 1, 1, True)),
    ):
        with mode():
            number = jobs.batch_create(None)
            assert progress(number) == (False, 0, 0, 0, False)
            app.load.with_options(batch=number).enqueue(None, 1)
            with suppress(KeyError):
                app.bad.with_options(batch=number).enqueue(None)
            assert progress(number) == filled
            jobs.batch_close(None, number)
            assert progress(number) == ended
            assert jobs.batch_get(None, 99) is None


@pytest.mark.parametrize("fails", [False, True])
def test_inline_ends_a_batch(app: App, fails: bool) -> None:
    done: tuple[Any, ...] = ("done", None, {}, 10)
    with inline():
        asyncio.run(batch_of(app, fails=fails))
        assert app.ran == [7, *([] if fails else [8]), done, 9]
        app.ran.clear()
        number = jobs.batch_create(None, on_complete=app.load.template(1))
        assert app.ran == []
        jobs.batch_close(None, number)
        jobs.batch_close(None, number)
        assert app.ran == [1], "an empty one, once"


def test_inline_ends_a_batch_that_its_own_job_closes(app: App) -> None:
    @job
    def closes(number: int) -> None:
        jobs.batch_close(None, number)
        app.ran.append("closed")

    with inline():
        number = jobs.batch_create(None, on_success=app.load.template(1))
        closes.with_options(batch=number).enqueue(None, number)
    assert app.ran == ["closed", 1]


def test_inline_runs_a_job_if_those_that_it_needs_have_ended(app: App) -> None:
    with inline() as kept:
        first = app.load.enqueue(None, 1)
        app.load.with_options(after=[first]).enqueue(None, 2)
        with pytest.raises(KeyError):
            app.bad.enqueue(None)
        failed = kept.of(app.bad)[0].id
        cancelled = app.load.with_options(after=[first, failed], then=app.load.template(9)).enqueue(None, 3)
        app.load.with_options(after=[cancelled]).enqueue(None, 4)
        app.load.with_options(after=[failed, cancelled], run_if="ended").enqueue(None, 5)
    assert app.ran == [1, 2, 5]


def test_inline_gives_a_job_what_those_returned_that_it_needs(app: App) -> None:
    seen: Ran = []

    @job
    async def returns(value: Any) -> Any:
        return value

    @job
    def returns_a_set() -> set[int]:
        return {1}

    @job
    def completes(context: Context) -> str:
        context.complete(None, ["in its transaction"])
        return "not this"

    @job
    def sees(context: Context) -> None:
        seen.append(context.results)

    with inline() as kept:
        first, second = returns.enqueue(None, {"a": (1, 2)}), returns.enqueue(None, None)
        third, fourth = completes.enqueue(None), returns_a_set.enqueue(None)
        with pytest.raises(KeyError):
            app.bad.enqueue(None)
        needed = [first, second, third, fourth, kept.of(app.bad)[0].id]
        sees.with_options(after=needed, run_if="ended").enqueue(None)
        sees.enqueue(None)
    assert seen == [{first: {"a": [1, 2]}, second: None, third: ["in its transaction"]}, {}]


Case = Callable[[App], object]
REQUEST = "https://shop.example/paid"


def batch_with_a_request(app: App) -> None:
    with jobs.batch(None, on_complete=app.report.template()) as number:
        jobs.enqueue_http(None, "hooks", REQUEST, batch=number)


def needs_another(app: App) -> None:
    app.load.with_options(after=[str(uuid4())]).enqueue(None, 1)


@pytest.mark.parametrize(
    ("mode", "act", "kind", "said"),
    [
        (inline, batch_with_a_request, HandlerError, "batch 1 has job 'shop.example', which inline.. does not run"),
        (inline, needs_another, UnknownReference, "it has not ended here"),
        (
            inline,
            lambda app: app.load.with_options(after=[jobs.enqueue_http(None, "hooks", REQUEST)]).enqueue(None, 1),
            UnknownReference,
            r"job 'load' needs job .*inline\(\) cannot know its end",
        ),
        (recorded, batch_with_a_request, None, ""),
    ],
)  # fmt: skip
def test_what_a_mode_cannot_know_is_an_error(
    app: App, mode: Callable[[], AbstractContextManager[Recorder]], act: Case, kind: type[Exception] | None, said: str
) -> None:
    with mode() as kept:
        if kind is None:
            act(app)
            assert len(kept.jobs) == 1
            return
        with pytest.raises(kind, match=said):
            act(app)
    assert app.ran == []
