"""Handlers by their names, and modules of them."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.jobs import Context, Job, around, before, current, job
from relay.jobs.errors import BadOptions, HandlerError
from relay.jobs.registry import handler, handlers, load, own_handlers

Modules = Callable[[str, str], str]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    """Writes modules into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    names = []

    def write(name: str, text: str) -> str:
        Path(f"{name}.py").write_text(textwrap.dedent(text))
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_decorated_function_is_called_as_before() -> None:
    @job(name="sum", queue="numbers")
    def add(context: Context, one: int, two: int = 2) -> int:
        """Adds."""
        return one + two

    assert (add(Context(), 1), add(Context(), one=1, two=5)) == (3, 6)
    assert (add.__name__, add.__doc__, add.name, add.options["queue"]) == ("add", "Adds.", "sum", "numbers")
    assert handler("sum") is add
    assert handler("add") is None


def test_two_handlers_of_one_name_are_an_error_that_names_both() -> None:
    @job(name="send")
    def first() -> None: ...

    with pytest.raises(HandlerError) as caught:

        @job(name="send")
        def second() -> None: ...

    text = str(caught.value)
    assert "two handlers have the name 'send'" in text
    assert f"first ({__file__}:" in text
    assert f"second ({__file__}:" in text
    assert handler("send") is first


def test_modules_are_loaded_from_the_working_directory_also_again(modules: Modules) -> None:
    name = modules("shop_jobs", "from relay.jobs import job\n@job\ndef ship(order_id: int) -> None: ...\n")
    assert list(load([name])) == ["ship"]
    del sys.modules[name]
    load([name])
    assert list(handlers()) == ["ship"]


def test_a_module_that_cannot_be_loaded_says_why(modules: Modules) -> None:
    modules("needs", "import no_such_library")
    modules("broken", "1 / 0")
    modules("unclear", "from relay.jobs import job\n@job\ndef go(file: open) -> None: ...\n")
    for name, problem in [
        ("nowhere", "there is no module 'nowhere'"),
        ("needs.jobs", "module 'needs.jobs' cannot be imported: No module named 'no_such_library'"),
        ("broken", "module 'broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("unclear", "job 'go': argument 'file'"),
    ]:
        with pytest.raises(HandlerError, match=problem):
            load([name])


def test_modules_without_a_handler_are_an_error_that_says_how_to_write_one(modules: Modules) -> None:
    with pytest.raises(HandlerError, match=r"no handler of jobs is in plain: write @job above a function"):
        load([modules("plain", "def ship(): ...")])
    assert load([]) == {}


def test_what_would_do_nothing_is_no_handler() -> None:
    def plain() -> Any:
        return coroutine()

    def generates() -> Iterator[int]:
        yield 1

    async def coroutine() -> None: ...

    with pytest.raises(HandlerError, match="'plain': its handler returned a coroutine"):
        job(plain).run("{}", Context())
    cases: list[tuple[Any, str]] = [
        (generates, "'generates': its handler has a `yield`"),
        (Context, "needs a function"),
    ]
    for what, problem in cases:
        with pytest.raises(HandlerError, match=problem):
            job()(what)


def test_options_are_checked_where_they_are_written() -> None:
    def send() -> None: ...

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"priority": 1001}, "priority: Input should be less than or equal to 1000"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"run_key": ""}, "run_key: String should have at least 1 character"),
        ({"queue": ""}, "queue: String should have at least 1 character"),
    ]
    for options, problem in wrong:
        with pytest.raises(BadOptions, match=f"job 'send': {problem}"):
            job(**options)(send)
    made = job(send)
    wrong = [
        ({"dellay": 3}, "dellay: Extra inputs are not permitted"),
        ({"delay": -1}, "delay: "),
        ({"delay": float("nan")}, "delay: "),
        ({"at": datetime(2030, 1, 1)}, "at: Input should have timezone info"),  # noqa: DTZ001
        ({"delay": 1, "at": datetime.now(UTC)}, "give delay or at, not both"),
        ({"dedupe": "waiting"}, "dedupe needs a dedupe_key"),
        ({"on_conflict": "replace"}, "on_conflict: Input should be 'error' or 'ignore'"),
        ({"max_attempts": "some"}, "max_attempts: "),
        ({"backoff": []}, "backoff: "),
    ]
    for options, problem in wrong:
        with pytest.raises(BadOptions, match=f"job 'send': {problem}"):
            made.with_options(**options)  # type: ignore[typeddict-item]
    both = made.with_options(dedupe_key="x").with_options(dedupe="waiting", priority=None)
    assert (both.options["dedupe_key"], both.options["priority"]) == ("x", 0)
    with pytest.raises(BadOptions, match="give delay or at, not both"):
        made.with_options(delay=1).with_options(at=datetime.now(UTC))
    with pytest.raises(BadOptions, match=r"headers.a: the text has the character NUL"):
        made.with_options(headers={"a": "\0"}).enqueue(None)


def test_options_of_a_copy_add_to_those_of_the_handler() -> None:
    @job(queue="mail", max_attempts=5, run_key="all", key=lambda order: f"order:{order}")
    def send(order: int, note: str = "") -> None: ...

    before = datetime.now(UTC)
    delayed = send.with_options(delay=timedelta(minutes=1), priority=7, trace_id=None).with_options(priority=8)
    columns = delayed.new_job((3,), {}).columns
    at: Any = columns["available_at"][1]
    assert timedelta(minutes=1) <= at - before < timedelta(minutes=2)
    assert {name: value for name, (_, value) in columns.items() if name != "available_at"} == {
        "priority": 8,
        "max_attempts": 5,
        "timeout_seconds": 30,
        "run_key": "all",
        "idempotency_key": "order:3",
    }
    assert send.with_options(idempotency_key="mine").new_job((3,), {}).value("idempotency_key") == "mine"
    assert send.new_job((3,), {}).value("priority") == 0


def test_a_key_takes_arguments_of_the_handler() -> None:
    def send(order: int, region: str = "eu") -> None: ...

    made = job(key=lambda region, order: f"{region}:{order + 1}", run_key=lambda region: region)(send)
    new = made.new_job((), {"order": "4"})
    assert (new.value("idempotency_key"), new.value("run_key")) == ("eu:5", "eu")
    with pytest.raises(HandlerError, match=r"key of the job takes \['user'\]"):
        job(name="other", key=lambda user: user)(send)
    with pytest.raises(BadOptions, match="idempotency_key: Input should be a valid string"):
        job(name="wrong", key=lambda order: order)(send).enqueue(None, 3)


def nested(log: list[str]) -> Job[..., ..., Any]:
    @before
    def begins(context: Context) -> None:
        log.append(f"before {context.name}")

    @around
    def scope(context: Context) -> Iterator[None]:
        log.append("in")
        try:
            yield
        finally:
            log.append("out")

    @around
    async def only_of_coroutines(context: Context) -> AsyncIterator[None]:
        log.append("async in")
        yield
        log.append("async out")

    @before
    async def also(context: Context) -> None:
        log.append("async before")

    def work() -> Context | None:
        log.append("work")
        return current()

    return job(work)


def test_middleware_surrounds_a_plain_function() -> None:
    log: list[str] = []
    context = Context(name="work")
    assert nested(log).run("{}", context) is context
    assert log == ["before work", "in", "work", "out"]
    assert current() is None


def test_middleware_surrounds_a_coroutine_that_fails() -> None:
    log: list[str] = []
    nested(log)

    @job
    async def fails() -> None:
        assert current() is context
        raise KeyError("x")

    context = Context(name="fails")
    with pytest.raises(KeyError):
        asyncio.run(fails.run_async("{}", context))
    assert log == ["before fails", "in", "async in", "async before", "out"]
    with pytest.raises(HandlerError, match="generator function"):
        around(lambda context: None)  # type: ignore[type-var]


def test_a_handler_that_the_clock_enqueues_needs_no_arguments(modules: Modules) -> None:
    text = "from relay.jobs import job\n@job(cron='0 3 * * *')\ndef {}: ...\n"
    with pytest.raises(HandlerError, match="'nightly' has a cron expression, so it must need no arguments"):
        load([modules("needy", text.format("nightly(day: str) -> None"))])
    with own_handlers():
        found = load([modules("content", text.format("weekly(day: str = 'monday') -> None"))])
        assert list(found) == ["weekly"]
