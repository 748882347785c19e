"""What is done with one queue asks nothing of the others: with hundreds of queues it costs what it costs with one."""

from collections.abc import Callable
from typing import Any

from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of

OTHER_QUEUES = 6
OFTEN = 8
"""So often that a plan would be kept that is for any queue."""
# What this transaction has locked, but for the tables of queue 1: to plan over the tables of all queues locks them, and
# so does a plan that was kept.
OTHERS_LOCKED = """
select array_agg(distinct c.relname::text) from pg_locks l join pg_class c on c.oid = l.relation
 where l.pid = pg_backend_pid() and c.relname ~ '^job_(attempt_)?[0-9]' and c.relname !~ '^job_(attempt_)?1(_|$)'
"""


def ended(outcome: str, code: str | None = None) -> Callable[[Session, Worker], object]:
    def end(session: Session, worker: Worker) -> None:
        for _ in range(3):
            enqueue(session)
        assert worker.run(2, outcome, code)

    return end


def claimed(**options: Any) -> Callable[[Session, Worker], object]:
    def claim(session: Session, worker: Worker) -> None:
        job = enqueue(session, **options)
        assert job in [c[1] for c in worker.claim()]

    return claim


def completed(session: Session, worker: Worker) -> None:
    enqueue(session)
    ((lease, job, attempt),) = worker.claim()
    session.execute("select tide.job_complete(%s, %s, %s::smallint)", [lease, job, attempt])
    assert worker.finish([(lease, job, attempt)]) == 0


def claimed_late(session: Session, worker: Worker) -> None:
    """Above an id that another transaction has taken, as it seems."""
    session.execute("select nextval(ids) from tide.outbox where outbox_id = 1")
    enqueue(session)
    assert worker.claim()
    assert worker.claim() == []


def handed_back(session: Session, worker: Worker) -> None:
    enqueue(session)
    assert worker.claim()
    assert one(session, "select tide.job_release(%s)", worker.number) == 1


def rescued(session: Session, worker: Worker) -> None:
    enqueue(session)
    assert worker.claim()
    assert one(session, "select tide.job_rescue(-1)") == 1


def enqueued_many(session: Session, worker: Worker) -> None:
    session.execute("select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[3]))")


def shown(session: Session, worker: Worker) -> None:
    job = enqueue(session)
    public = uuid_of(session, job)
    assert worker.run(1, "r", "failed") == worker.run() == [job]
    assert one(session, "select state from tide.job_get(%s)", public) == "succeeded"
    assert one(session, "select array_agg(attempt) from tide.job_attempts(%s)", public) == [1, 2]
    assert one(session, "select tide.job_state('mail', %s)", job) == "succeeded"


def given_results(session: Session, worker: Worker) -> None:
    needed = enqueue(session)
    assert worker.run() == [needed]
    # To enqueue it so would look at tide.job itself: whether what it needs is of this transaction.
    options = Jsonb({"after": [uuid_of(session, needed)]})
    session.execute("update tide.job_1 set options = %s where id = %s", [options, enqueue(session)])
    ((lease, job, _),) = worker.claim()
    session.execute("select * from tide.job_results(%s::bigint[], %s::bigint[])", [[lease], [job]])


DONE = {
    "enqueued in bulk": enqueued_many,
    "claimed": claimed(),
    "claimed by its priority": claimed(priority=5),
    "claimed when it is due": claimed(available_at="-infinity"),
    "claimed by its run key": claimed(run_key="k"),
    "claimed with its idempotency key": claimed(idempotency_key="k"),
    "claimed beside an open transaction": claimed_late,
    "succeeded": ended("s"),
    "to be retried": ended("r", "failed"),
    "dead": ended("d", "failed"),
    "completed in a transaction of its handler": completed,
    "shown, with its attempts": shown,
    "given the results of others": given_results,
    "handed back": handed_back,
    "rescued": rescued,
}


def test_no_job_touches_the_tables_of_another_queue(database: Database) -> None:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        for number in range(OTHER_QUEUES):
            session.execute("select tide.job_queue_create(%s)", [f"other-{number}"])
    touched = {}
    for what, do in DONE.items():
        with database.connect() as session:
            worker = Worker(session)
            for _ in range(OFTEN):
                with session.transaction(force_rollback=True):
                    do(session, worker)
                    touched[what] = one(session, OTHERS_LOCKED)
    assert touched == dict.fromkeys(DONE)


def test_a_dropped_queue_leaves_no_functions_behind(database: Database) -> None:
    functions = "select count(*) from pg_proc where pronamespace = 'tide'::regnamespace"
    with database.connect() as session:
        before = one(session, functions)
        session.execute("select tide.job_queue_create('mail')")
        assert one(session, functions) > before
        session.execute("select tide.job_queue_drop('mail')")
        assert one(session, functions) == before
