"""Keys of jobs: idempotency, dedupe and debounce, also under open transactions."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one
from tests.waiting import wait_until

WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def jobs(session: Session) -> list[int]:
    return [job for (job,) in session.execute("select id from tide.job order by id")]


def while_open(database: Database, first: Any, second: Any, end: str) -> Any:
    """What `second(session)` gives, or raises: it waits for the open transaction of `first(session)` until its end."""
    with database.connect(autocommit=False) as a, database.connect() as b, ThreadPoolExecutor(1) as pool:
        first(a)
        later = pool.submit(second, b)
        with database.connect() as watch:
            wait_until(lambda: one(watch, WAITING) == 1, what="the second waits")
        getattr(a, end)()
        return later.result(30)


def test_a_repeated_idempotency_key_is_the_first_job_or_an_error_that_names_it(session: Session) -> None:
    first = enqueue(session, {"n": 1}, idempotency_key="k")
    assert enqueue(session, {"n": 1}, idempotency_key="k") == first
    assert enqueue(session, {"n": 2}, idempotency_key="k", on_conflict="ignore") == first
    with pytest.raises(psycopg.errors.UniqueViolation, match=f'key "k" of queue "mail" belongs to job {first}, which'):
        enqueue(session, {"n": 2}, idempotency_key="k")
    assert Worker(session).run() == [first]
    assert enqueue(session, {"n": 1}, idempotency_key="k") == first
    assert jobs(session) == [first]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_open_transactions_with_one_idempotency_key_make_one_job(
    database: Database, session: Session, end: str
) -> None:
    def first(session: Session) -> int:
        return enqueue(session, {"n": 1}, idempotency_key="k")

    got = while_open(database, first, first, end)
    assert jobs(session) == [got]

    def other(session: Session) -> int:
        return enqueue(session, {"n": 3}, idempotency_key="m")

    if end == "rollback":
        got = while_open(database, lambda session: enqueue(session, {"n": 2}, idempotency_key="m"), other, end)
        assert jobs(session)[-1] == got
    else:
        with pytest.raises(psycopg.errors.UniqueViolation, match="another name or payload"):
            while_open(database, lambda session: enqueue(session, {"n": 2}, idempotency_key="m"), other, end)


@pytest.mark.parametrize(("dedupe", "free"), [("waiting", "claimed"), ("unfinished", "ended")])
def test_a_dedupe_key_is_free_when_its_job_is(session: Session, dedupe: str, free: str) -> None:
    worker = Worker(session)

    def again() -> int:
        return enqueue(session, dedupe_key="d", dedupe=dedupe)

    first = again()
    assert again() == first
    claimed = worker.claim()
    assert [job for _, job, _ in claimed] == [first]
    second = again()
    assert (second != first) == (free == "claimed")
    # What was retried has not ended.
    worker.finish(claimed, "r")
    assert (again() == second) and jobs(session) == sorted({first, second})
    while claimed := worker.claim():
        worker.finish(claimed)
    assert again() not in (first, second)


def test_a_dedupe_key_is_free_after_the_rollback_of_a_debounce_that_had_it_at_the_claim(
    database: Database, session: Session
) -> None:
    """A claim does not wait for the key, so it cannot free it."""
    worker = Worker(session)
    first = enqueue(session, dedupe_key="d", dedupe="waiting")
    with database.connect(autocommit=False) as other:
        enqueue(other, dedupe_key="d", debounce="1 hour")
        assert worker.run() == [first]
        other.rollback()
    second = enqueue(session, dedupe_key="d", dedupe="waiting")
    assert second != first
    # It is held as ever: until its job is claimed, or has ended.
    assert enqueue(session, dedupe_key="d", dedupe="waiting") == second
    assert worker.run() == [second]
    third = enqueue(session, dedupe_key="d", dedupe="unfinished")
    claimed = worker.claim()
    assert enqueue(session, dedupe_key="d", dedupe="waiting") == third
    worker.finish(claimed)
    assert enqueue(session, dedupe_key="d", dedupe="waiting") not in (first, second, third)


def test_a_key_that_was_left_over_is_taken_once(database: Database, session: Session) -> None:
    first = enqueue(session, dedupe_key="d", dedupe="waiting")
    with database.connect(autocommit=False) as other:
        enqueue(other, dedupe_key="d", debounce="1 hour")
        assert Worker(session).run() == [first]
        other.rollback()

    def again(session: Session) -> int:
        return enqueue(session, dedupe_key="d", dedupe="waiting")

    assert while_open(database, again, again, "commit") == jobs(session)[-1]
    assert len(jobs(session)) == 2


def test_two_open_transactions_with_one_dedupe_key_make_one_job(database: Database, session: Session) -> None:
    def first(session: Session) -> int:
        return enqueue(session, dedupe_key="d", dedupe="unfinished", idempotency_key=f"i {id(session)}")

    assert jobs(session) == [] and while_open(database, first, first, "commit") == jobs(session)[0]
    # The idempotency key of the second stands for the job of the first.
    assert {job for (job,) in session.execute("select id from tide.job_key")} == set(jobs(session)) and len(
        jobs(session)
    ) == 1


def test_what_is_debounced_is_done_once_and_not_later_than_the_longest(session: Session) -> None:
    options = {"dedupe_key": "page", "debounce": "1 hour", "debounce_max": "90 minutes"}
    due = "select extract(epoch from available_at - clock_timestamp()) / 60 from tide.job_wait"
    first, second = enqueue(session, {"n": 1}, **options), enqueue(session, {"n": 2}, **options)
    assert session.execute("select id from tide.job_wait").fetchall() == [(second,)]
    assert 55 < one(session, due) <= 60
    session.execute("update tide.job_key set since = since - interval '85 minutes'")
    third = enqueue(session, {"n": 3}, **options)
    assert 0 < one(session, due) <= 5
    assert one(session, "select tide.job_state('mail', %s)", first) == "cancelled"
    session.execute("update tide.job_wait set available_at = clock_timestamp()")
    worker = Worker(session)
    assert worker.run() == [third]
    # It has begun: the next is a job of its own.
    assert 55 < one(session, f"select ({due} where id = %s)", enqueue(session, **options)) <= 60
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="debounce 01:00:00 of the job"):
        enqueue(session, debounce="1 hour")


def test_no_claim_waits_for_an_open_debounce_which_leaves_it_the_job_that_it_has(
    database: Database, session: Session
) -> None:
    options = {"dedupe_key": "page", "debounce": "0"}
    session.execute("set lock_timeout = '2s'")
    first = enqueue(session, **options)
    with database.connect(autocommit=False) as enqueuing, database.connect(autocommit=False) as claiming:
        enqueuing.execute("set lock_timeout = '2s'")
        worker = Worker(session)
        enqueue(enqueuing, **options)
        assert worker.claim() == []
        enqueuing.rollback()
        # The key is locked, and its job is being claimed.
        enqueuing.execute("select from tide.job_key for update")
        assert worker.run() == [first]
        second = enqueue(enqueuing, **options)
        enqueuing.commit()
        assert second != first and worker.run() == [second]
        # The job is locked as by a claim.
        third = enqueue(session, **options)
        claiming.execute("select from tide.job_wait for update")
        fourth = enqueue(session, **options)
    assert worker.run() == [third, fourth]
