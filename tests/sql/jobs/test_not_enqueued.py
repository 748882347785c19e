"""What follows a job and cannot be enqueued: never is a dead job that is listed, not now undoes the end of the job."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.support import refused

pytestmark = pytest.mark.usefixtures("reports")


def followed(session: Session, **then: object) -> int:
    return enqueue(session, options=Jsonb({"then": {"queue": "reports", "name": "next"} | then}))


def listed(session: Session, queue: str = "reports") -> list[Any]:
    """What `relay jobs list` shows: names, states, codes and attempts."""
    return session.execute("select name, state, code, attempts from tide.job_list(%s)", [queue]).fetchall()


def shown(session: Session, queue: str = "reports") -> Any:
    """Of the dead job of a queue: the error, and what it is."""
    return session.execute(
        "select g.error, g.options::jsonb - 'follows', g.options::jsonb ->> 'follows', g.payload::jsonb, g.priority,"
        " g.max_attempts, g.timeout_seconds from tide.job_list(%s, 'dead_letter') l, tide.job_get(l.job) g",
        [queue],
    ).fetchone()


# Never ---------------------------------------------------------------------------------------------------------------


Break = Callable[[Session], object]


@pytest.mark.parametrize(
    ("then", "spoil", "error"),
    [
        ({}, "select tide.outbox_disable('jobs/reports')", 'job queue "reports" takes no jobs: its outbox is disabled'),
        ({}, "update tide.outbox set max_payload_bytes = 20 where name = 'jobs/reports'", "its limit is 20"),
        ({"priority": "high"}, "", "invalid input syntax"),
        ({"priority": 1001}, "", "must be between -1000 and 1000"),
        ({"timeout_seconds": 10**9, "max_attempts": 0, "run_key": "", "headers": [1]}, "", "must be between 1 and"),
        ({"kind": "fax"}, "", "kind 'fax' of a job is not known"),
        ({"delay_seconds": 1e300}, "", "out of range"),
        ({"options": {"batch": 99}}, "", "batch 99 takes no jobs"),
        ({"options": {"after": ["x"]}}, "", "invalid input syntax"),
        ({"options": 7}, "", "must be"),
    ],
)
def test_what_can_never_be_enqueued_is_a_dead_job(
    session: Session, worker: Worker, then: dict[str, Any], spoil: str, error: str
) -> None:
    payload = {"text": "x" * 100}
    first = followed(session, payload=payload, **then)
    session.execute(spoil.encode() or b"select")
    assert worker.run() == [first]
    assert listed(session) == [("next", "dead_letter", "not_enqueued", 0)]
    reason, options, follows, kept, *numbers = shown(session)
    assert error in reason
    assert (options, follows, kept, numbers) == ({}, uuid_of(session, first), payload, [0, 10, 30])
    assert one(session, "select dead from tide.job_stats('reports')") == 1
    # When the queue takes jobs again, it is replayed as any other.
    session.execute("update tide.outbox set enabled = true, max_payload_bytes = 1000")
    session.execute("select tide.job_replay_many('reports')")
    assert Worker(session, "reports").run()
    assert {row[1] for row in listed(session)} == {"succeeded", "dead_letter"}


def test_what_it_would_have_been_is_kept(session: Session, worker: Worker) -> None:
    options = {"then": {"name": "last"}, "backoff": 3}
    then = {"priority": -7, "max_attempts": 1000, "timeout_seconds": 60, "options": options, "run_key": "k"}
    followed(session, **then)
    session.execute("select tide.outbox_disable('jobs/reports')")
    worker.run()
    assert shown(session)[1:] == (options, uuid_of(session, 1), {}, -7, 1000, 60)
    session.execute("select tide.outbox_enable('jobs/reports')")
    session.execute("select tide.job_replay_many('reports')")
    reports = Worker(session, "reports")
    assert len(reports.run()) == 1
    assert listed(session)[0][:2] == ("last", "pending")


def test_of_a_queue_that_was_dropped_it_is_in_that_of_the_job_before(session: Session, worker: Worker) -> None:
    first = followed(session)
    number = one(session, "select tide.job_batch_create(on_complete => %s)", Jsonb({"queue": "reports", "name": "end"}))
    second = enqueue(session, options=Jsonb({"batch": number}))
    empty = one(session, "select tide.job_batch_create(on_complete => %s)", Jsonb({"queue": "reports", "name": "end"}))
    session.execute("select tide.job_batch_close(%s)", [number])
    session.execute("select tide.job_queue_drop('reports')")
    assert worker.run() == [first, second]
    assert listed(session, "mail")[:2] == [
        ("end", "dead_letter", "not_enqueued", 0),
        ("next", "dead_letter", "not_enqueued", 0),
    ]
    errors = session.execute("select error, job #>> '{options,follows}' from tide.job_dead order by id").fetchall()
    reason = 'job queue "reports" does not exist'
    assert errors == [(reason, uuid_of(session, first)), (reason, f"batch {number}")]
    session.execute("select tide.job_batch_close(%s)", [empty])  # no job has ended it, so no queue is left for it
    assert one(session, "select ended_at is not null from tide.job_batch_get(%s)", empty)


# Not now -------------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_given_undoes_the_end_and_the_chain_goes_on_when_it_is_tried_again(
    database: Database, session: Session, worker: Worker
) -> None:
    followed(session)
    claimed = worker.claim()
    with database.connect(autocommit=False) as other:
        other.execute("lock table tide.job_2 in share mode")
        session.execute("set lock_timeout = '100ms'")
        with refused("55P03", "lock timeout"):
            worker.finish(claimed)
        assert one(session, "select tide.job_state('mail', 1)") == "leased"
        with refused("55P03", "lock timeout"):
            session.execute("select tide.job_complete(%s, 1, 1::smallint), tide.job_rescue(-1)", [claimed[0][0]])
        other.rollback()
    assert worker.finish(claimed) == 0
    assert listed(session) == [("next", "pending", None, 0)]


def test_a_deadlock_undoes_the_end_too(session: Session, worker: Worker) -> None:
    """Any error that is not on the list does. That of a trigger stands for it."""
    session.execute(
        """
        create function trap() returns trigger language plpgsql as $$ begin
            raise exception 'trapped' using errcode = tg_argv[0];
        end $$
        """
    )
    followed(session)
    claimed = worker.claim()
    for code in ("40P01", "40001", "53100", "55006", "23514", "42P01", "XX000", "P0001"):
        session.execute(f"create trigger trap before insert on tide.job_2 for each row execute function trap('{code}')")
        with refused(code, "trapped"):
            worker.finish(claimed)
        session.execute("drop trigger trap on tide.job_2")
    assert worker.finish(claimed) == 0
    assert listed(session) == [("next", "pending", None, 0)]
