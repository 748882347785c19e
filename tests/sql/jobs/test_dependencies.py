"""Jobs that wait for others."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.following import after, batch, left, numbers, state, with_options
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.support import refused
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("reports")


def test_a_job_waits_for_those_that_it_needs(database: Database, session: Session, worker: Worker) -> None:
    with session.transaction():
        first, second = enqueue(session), enqueue(session, run_key="k")
        last = after(session, first, second)
    ended = after(session, first)
    assert state(session, last) == "pending"
    assert one(session, "select available_at from tide.job_list('mail', name => 'later', max_rows => 1)") is None
    claimed = {c[1]: c for c in worker.claim()}
    assert set(claimed) == {first, second}
    worker.finish([claimed[first]])
    assert worker.run() == [ended]
    worker.finish([claimed[second]])
    assert worker.run() == [last]
    assert left(session) == 0
    done = after(session, first, last)
    assert worker.run() == [done]
    with refused("P0002", "needs a job that does not exist"):
        after(session, 9999)


def test_a_job_that_needs_one_that_fails_is_cancelled_and_so_are_those_that_need_it(
    session: Session, worker: Worker
) -> None:
    first = enqueue(session)
    second = after(session, first)
    third, always = after(session, second), after(session, second, run_if="ended")
    assert worker.run(outcome="d") == [first]
    assert [state(session, job) for job in (second, third)] == ["cancelled", "cancelled"]
    assert one(session, "select code from tide.job_get(%s)", uuid_of(session, third)) == "dependency_failed"
    assert worker.run() == [always]
    assert state(session, after(session, first)) == "cancelled"
    waiting = after(session, cancelled := enqueue(session))
    session.execute("select tide.job_cancel(%s)", [uuid_of(session, cancelled)])
    assert state(session, waiting) == "cancelled" and left(session) == 0


def test_one_that_is_enqueued_while_what_it_needs_ends_runs_too(
    database: Database, session: Session, worker: Worker
) -> None:
    first = enqueue(session)
    claimed = worker.claim()
    with database.connect(autocommit=False) as slow:
        last = after(slow, first)
        worker.finish(claimed)
        slow.commit()
    assert worker.run() == []
    session.execute("select tide.job_rescue(30)")
    assert worker.run() == [last]


def test_one_that_is_enqueued_while_what_it_needs_is_cancelled_is_cancelled_too(
    database: Database, session: Session, worker: Worker
) -> None:
    """A claim that passes a cancelled job over ends it once more, and is then the first who sees what needs it."""
    first = with_options(session, "first")
    with database.connect(autocommit=False) as other:
        late = after(other, first)
        one(session, "select tide.job_cancel(%s)", uuid_of(session, first))
        other.commit()
    assert worker.claim() == []
    assert (state(session, late), left(session)) == ("cancelled", 0)


def test_the_last_two_that_a_job_needs_end_at_the_same_time_and_it_runs(database: Database, session: Session) -> None:
    needed = [enqueue(session), enqueue(session)]
    last = after(session, *needed)
    with database.connect(autocommit=False) as first, database.connect() as second:
        one_worker, other_worker = Worker(first), Worker(second)
        mine = one_worker.claim(1)
        first.commit()
        others = other_worker.claim(1)
        one_worker.finish(mine)
        with ThreadPoolExecutor() as pool:
            finishing = pool.submit(other_worker.finish, others)
            pid = second.info.backend_pid
            wait_until(
                lambda: one(session, "select cardinality(pg_blocking_pids(%s))", pid), what="it waits for the first"
            )
            first.commit()
            assert finishing.result() == 0
        assert other_worker.run() == [last]


def test_a_queue_that_is_dropped_ends_what_waits_for_its_jobs(session: Session, worker: Worker) -> None:
    number = batch(session)
    other = enqueue(session, queue="reports", options=Jsonb({"batch": number}))
    waiting = with_options(session, after=[uuid_of(session, other, "reports")])
    session.execute("select tide.job_batch_close(%s)", [number])
    session.execute("select tide.job_queue_drop('reports', force => true)")
    assert state(session, waiting) == "cancelled"
    assert (numbers(session, number), left(session)) == ((True, 0, 0, 1), 0)
