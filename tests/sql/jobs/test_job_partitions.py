"""Partitions of a queue that are made while jobs are enqueued: none of those is refused."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, enqueue, one
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

SIZE = 1000


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail', partition_size => %s)", [SIZE])
        session.execute("select setval((select ids from tide.outbox), 1200)")
        yield session


def extend(session: Session) -> int:
    return int(one(session, "select tide.outbox_extend('jobs/mail')"))


def enqueue_many(session: Session, count: int) -> list[int]:
    payloads = "array_fill('{}'::jsonb, array[%s])"
    return list(one(session, f"select tide.job_enqueue_many('mail', '{{send}}', {payloads})", count))


@pytest.mark.parametrize("enqueue_one", [enqueue, lambda session: enqueue_many(session, 1)], ids=["one", "many"])
def test_a_transaction_that_enqueued_before_a_partition_was_made_may_enqueue_into_it(
    database: Database, session: Session, enqueue_one: Callable[[Session], object]
) -> None:
    """It has the tables open from before, and PostgreSQL would refuse its rows in the default partition."""
    with database.connect() as enqueuing, enqueuing.transaction():
        enqueue_one(enqueuing)
        enqueue_one(enqueuing)
        assert extend(session) == 1
        session.execute("select setval((select ids from tide.outbox), 2000)")
        enqueue_one(enqueuing)
    assert one(session, "select array_agg(tableoid::regclass::text order by id) from tide.job") == [
        "tide.job_1_1000", "tide.job_1_1000", "tide.job_1_2000"
    ]  # fmt: skip


def test_no_partition_is_made_under_an_enqueue_of_many_jobs(database: Database, session: Session) -> None:
    """It knows the partitions from its beginning, however long it takes, and could reach one that is made meanwhile."""
    session.execute(
        """create function held() returns trigger language plpgsql as
           $$ begin perform pg_advisory_xact_lock_shared(77); return new; end $$;
           create trigger held before insert on tide.job_1_1000 for each row execute function held()"""
    )
    with database.connect() as enqueuing, ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("select pg_advisory_lock(77)")
        many = pool.submit(enqueue_many, enqueuing, 20)
        wait_until(lambda: session.execute("select from pg_locks where not granted").rowcount)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            extend(session)
        holder.execute("select pg_advisory_unlock(77)")
        assert many.result() == list(range(1201, 1221))
    assert extend(session) == 1
