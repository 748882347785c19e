"""What goes to the database: as little as possible, and nothing else than would go otherwise."""

from typing import Any

import pytest

from relay.database.callers.statement import statement_of
from relay.jobs import job
from relay.jobs.context import Context, enter, leave
from relay.jobs.errors import BadArguments
from relay.jobs.sending import DEFAULTS, NewJob, enqueue_call, statement_of_one
from tests.services.postgres import Database


def sent(new: NewJob) -> dict[str, Any]:
    """What `tide.job_enqueue` is told."""
    return {name: value for name, (_, value) in enqueue_call(new).arguments.items()}


def test_the_defaults_that_are_not_sent_are_those_of_the_function(shared: Database) -> None:
    with shared.connect() as connection:
        for function in ("job_enqueue", "job_enqueue_many"):
            (arguments,) = connection.execute(
                "select pg_get_function_arguments(oid) from pg_proc where proname = %s", [function]
            ).fetchone() or ("",)
            for name, value in DEFAULTS.items():
                assert f"{name} integer DEFAULT {value}" in arguments


def test_a_job_that_is_no_more_than_its_arguments_goes_the_short_way() -> None:
    plain = NewJob("mail", "python", "send", '{"n": 1}', {"priority": ("int", 0), "max_attempts": ("int", 10)})
    assert statement_of_one(plain) == statement_of("job_enqueue_plain", enqueue_call(plain).arguments, one_value=True)
    assert sent(plain) == {"queue": "mail", "name": "send", "payload": '{"n": 1}'}
    for other, value in (
        (NewJob("mail", "http", "send", "{}", {}), {"kind": "http"}),
        (NewJob("mail", "python", "send", "{}", {"priority": ("int", 1)}), {"priority": 1}),
        (NewJob("mail", "python", "send", "{}", {"timeout_seconds": ("int", 31)}), {"timeout_seconds": 31}),
    ):
        assert sent(other) == {"queue": "mail", "name": "send", "payload": "{}"} | value
        assert "=> $5" in statement_of_one(other).texts.numbered


def test_each_job_has_the_options_that_hold_when_it_is_enqueued() -> None:
    send = job(name="send", queue="mail", max_attempts=5)(lambda: None)
    later = send.with_options(delay=60)
    assert sent(send.new_job((), {}))["max_attempts"] == 5
    first, second = (sent(later.new_job((), {}))["available_at"] for _ in range(2))
    assert first < second, "a delay begins with each job"
    assert sent(send.with_options(max_attempts=6).new_job((), {}))["max_attempts"] == 6
    token = enter(Context(trace_id="t"))
    try:
        assert sent(send.new_job((), {}))["trace_id"] == "t"
    finally:
        leave(token)
    assert "trace_id" not in sent(send.new_job((), {}))


def test_a_number_that_no_worker_could_read_is_refused() -> None:
    @job(name="count")
    def count(n: int, text: str = "") -> None: ...

    count.new_job((), {"n": 10**3000, "text": "é" * 9000})
    with pytest.raises(BadArguments):
        count.new_job((), {"n": 1 << 20_000})
