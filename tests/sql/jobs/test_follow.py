"""What follows a job, in the transaction that ends it: chains, batches and callbacks."""

from threading import Thread

import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.following import batch, left, names, numbers, state, with_options
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.support import refused

pytestmark = pytest.mark.usefixtures("reports")


# Chains ------------------------------------------------------------------------------------------------------------


def test_a_chain_goes_on_when_a_job_has_succeeded_and_only_then(session: Session, worker: Worker) -> None:
    third = {"name": "third", "queue": "reports", "payload": {"n": 3}}
    with_options(
        session, "first", then={"name": "second", "priority": 4, "options": {"then": [third, {"name": "other"}]}}
    )
    claimed = worker.claim()
    worker.finish(claimed, "r", "hiccup")
    assert names(session) == ["first"]
    [first] = worker.run()
    assert names(session) == ["first", "second"]
    found = session.execute("select priority, options ->> 'follows' from tide.job where name = 'second'").fetchone()
    assert found == (4, uuid_of(session, first))
    worker.run()
    assert (names(session), names(session, "reports")) == (["first", "second", "other"], ["third"])
    assert one(session, "select payload from tide.job where name = 'third'") == {"n": 3}
    with_options(session, "bad", then={"name": "never"})
    worker.run(outcome="d")
    assert "never" not in names(session) and left(session) == 0


def test_the_next_job_is_of_the_transaction_that_ends_the_one_before(database: Database, session: Session) -> None:
    with_options(session, "first", then={"name": "second"})
    with database.connect() as connection:
        worker = Worker(connection)
        claimed = worker.claim()
        connection.autocommit = False
        worker.finish(claimed)
        connection.rollback()
        assert names(session) == ["first"]
        worker.finish(claimed)
        connection.commit()
    assert names(session) == ["first", "second"]


def test_what_cannot_follow_is_refused_at_once_and_never_undoes_the_end_of_a_job(
    session: Session, worker: Worker
) -> None:
    for then in ("x", {}, {"name": 1}, [{"name": "a"}, {"name": "b", "colour": 1}]):
        with refused("22023", "options.then is not a job"):
            with_options(session, then=then)
    with refused("22023", "options.then.options.then is not a job: it has no name"):
        with_options(session, then={"name": "a", "options": {"then": {}}})
    for nowhere in ({"name": "a", "queue": "nope"}, {"name": "a", "options": {"then": {"name": "b", "queue": "nope"}}}):
        with refused("42704", 'job queue "nope" does not exist'):
            with_options(session, then=nowhere)
        with refused("42704", 'job queue "nope" does not exist'):
            batch(session, on_complete={"queue": "mail"} | nowhere)
    assert names(session) == []
    job = with_options(session, then=[{"name": "a", "queue": "reports"}, {"name": "b"}])
    session.execute("select tide.job_queue_drop('reports')")
    worker.run()
    assert state(session, job) == "succeeded"
    assert names(session) == ["send", "a", "b"]
    assert one(session, "select code from tide.job_list('mail', 'dead_letter')") == "not_enqueued"


def test_a_chain_goes_on_after_a_job_that_was_completed_by_a_worker_that_died(session: Session, worker: Worker) -> None:
    with_options(session, "first", then={"name": "second"})
    [(lease, job, attempt)] = worker.claim()
    session.execute("select tide.job_complete(%s, %s, %s::smallint)", [lease, job, attempt])
    assert names(session) == ["first"]
    session.execute("select tide.job_rescue(-1)")
    assert names(session) == ["first", "second"]


# Batches -----------------------------------------------------------------------------------------------------------


SUCCESS, COMPLETE = {"queue": "reports", "name": "success"}, {"queue": "reports", "name": "complete"}


def test_a_batch_ends_when_it_is_closed_and_all_of_it_has_ended(session: Session, worker: Worker) -> None:
    good = batch(session, on_success=SUCCESS, on_complete=COMPLETE)
    session.execute(
        "select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[3]), options => %s)",
        [Jsonb({"batch": good})],
    )
    worker.run()
    assert (numbers(session, good), names(session, "reports")) == ((False, 0, 3, 0), [])
    with_options(session, batch=good)
    session.execute("select tide.job_batch_close(%s)", [good])
    assert (numbers(session, good), names(session, "reports")) == ((True, 1, 3, 0), [])
    worker.run()
    assert (numbers(session, good), names(session, "reports")) == ((True, 0, 4, 0), ["success", "complete"])
    bad = batch(session, on_success=SUCCESS, on_complete=COMPLETE)
    for _ in range(2):
        with_options(session, batch=bad)
    session.execute("select tide.job_batch_close(%s), tide.job_batch_close(%s)", [bad, bad])
    session.execute("select tide.job_cancel(%s)", [uuid_of(session, max(worker_ids(session)))])
    assert numbers(session, bad) == (True, 1, 0, 1)
    worker.run(outcome="d")
    assert (numbers(session, bad), names(session, "reports")) == ((True, 0, 0, 2), ["success", "complete", "complete"])
    with refused("P0002", f"batch {bad} takes no jobs", hint="job_batch_create"):
        with_options(session, batch=bad)
    with refused("P0002", "batch 99 does not exist"):
        session.execute("select tide.job_batch_close(99)")
    with refused("22023", "need a queue"):
        batch(session, on_success={"name": "success"})
    debounced = batch(session)
    for _ in range(2):
        enqueue(session, dedupe_key="d", debounce="1 hour", options=Jsonb({"batch": debounced}))
    assert numbers(session, debounced) == (False, 1, 0, 1)
    session.execute("select tide.job_cancel_many('mail')")
    empty = batch(session, on_complete=COMPLETE)
    session.execute("select tide.job_batch_close(%s)", [empty])
    assert names(session, "reports")[3:] == ["complete"] and left(session) == 0


def worker_ids(session: Session) -> list[int]:
    return [job for (job,) in session.execute("select id from tide.job_list('mail', 'pending')")]


def test_the_last_two_of_a_batch_end_at_the_same_time_and_one_of_them_ends_it(
    database: Database, session: Session
) -> None:
    number = batch(session, on_complete=COMPLETE)
    for _ in range(2):
        with_options(session, batch=number)
    session.execute("select tide.job_batch_close(%s)", [number])
    with database.connect(autocommit=False) as first, database.connect() as second:
        one_worker, other_worker = Worker(first), Worker(second)
        mine = one_worker.claim(1)
        first.commit()
        others = other_worker.claim(1)
        one_worker.finish(mine)
        finishing = Thread(target=lambda: other_worker.finish(others))
        finishing.start()
        first.commit()
        finishing.join()
    assert (numbers(session, number), names(session, "reports")) == ((True, 0, 2, 0), ["complete"])


def test_who_enqueues_into_a_batch_holds_up_no_one_who_ends_its_jobs(database: Database, session: Session) -> None:
    number = batch(session)
    with_options(session, batch=number)
    with database.connect(autocommit=False) as slow:
        with_options(slow, batch=number)
        session.execute("set lock_timeout = '2s'")
        Worker(session).run()
        assert numbers(session, number) == (False, 0, 1, 0)
        limits = "select proconfig from pg_proc where oid = 'tide.job_batch_close'::regproc"
        assert "lock_timeout=5s" in one(session, limits)
        session.execute("alter function tide.job_batch_close set lock_timeout = '50ms'")
        with refused("55P03"):
            session.execute("select tide.job_batch_close(%s)", [number])
        slow.commit()
    session.execute("select tide.job_batch_close(%s)", [number])
    assert numbers(session, number) == (True, 1, 1, 0)
