"""What operators do besides cancelling: replaying, removing dead jobs, changing queues; and the numbers of a queue."""

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, enqueue_overdue, one, uuid_of
from tests.sql.security.logins import logins
from tests.sql.support import refused


def cancel(session: Session, job: int) -> str:
    return str(one(session, "select tide.job_cancel(%s, 'changed my mind')", uuid_of(session, job)))


def replay(session: Session, job: int, **options: object) -> int:
    named = "".join(f", {option} => %s" for option in options)
    return int(
        one(
            session,
            f"select (tide.job_of_uuid(tide.job_replay(%s{named}))).id",
            uuid_of(session, job),
            *options.values(),
        )
    )


# Replaying ---------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_replayed_any_number_of_times_with_its_key(session: Session, worker: Worker) -> None:
    plain: dict[str, Any] = {
        "idempotency_key": "i",
        "priority": 5,
        "max_attempts": 3,
        "timeout_seconds": 7,
        "trace_id": "t",
    }
    more: dict[str, Any] = {"headers": Jsonb({"a": "b"}), "metadata": Jsonb({"m": 1}), "options": Jsonb({"backoff": 9})}
    options = plain | more | {"dedupe_key": "d"}
    first = enqueue(session, {"n": 1}, **options)
    worker.run(outcome="d", code="bad")
    again = replay(session, first)
    with refused("55000", "has not ended: it is pending"):
        replay(session, again)
    columns = "name, kind, priority, max_attempts, timeout_seconds, idempotency_key, dedupe_key, trace_id"
    rows = session.execute(f"select {columns}, headers, metadata, payload from tide.job order by id").fetchall()
    assert len(rows) == 2 and rows[0] == rows[1]
    assert one(session, "select options from tide.job where id = %s", again) == {"backoff": 9, "replay_of": first}
    third = replay(session, first, available_at="2020-01-01")
    replayed_as = one(session, "select replayed_as::text from tide.job_get(%s)", uuid_of(session, first))
    assert replayed_as == uuid_of(session, third)
    assert worker.run() == [again, third]
    # The key still gives the first job.
    assert enqueue(session, {"n": 1}, idempotency_key="i") == first
    with refused("55000", "has succeeded", hint="force => true"):
        replay(session, again)
    assert replay(session, again, force=True) > third
    keyed = enqueue(session, run_key="k")
    cancel(session, keyed)
    assert one(session, "select run_key from tide.job_wait where id = %s", replay(session, keyed)) == "k"


def test_a_dead_job_is_replayed_after_its_partition_has_gone(session: Session, worker: Worker) -> None:
    job = enqueue(session, {"n": 1})
    worker.run(outcome="d")
    session.execute(f"truncate tide.{one(session, 'select log from tide.outbox')}_0")
    assert one(session, "select dead from tide.job_stats('mail')") == 1
    again = replay(session, job)
    assert one(session, "select dead from tide.job_stats('mail')") == 0, "it is not dead any more"
    assert one(session, "select payload from tide.job where id = %s", again) == {"n": 1}
    assert worker.run() == [again]


def test_many_are_replayed_once_in_their_order(session: Session, worker: Worker) -> None:
    dead = [enqueue(session, {"n": n}, name="ab"[n % 2]) for n in range(6)]
    worker.run(outcome="d")
    replay(session, dead[0])
    assert one(session, "select tide.job_replay_many('mail', name => 'a')") == 2
    assert one(session, "select tide.job_replay_many('mail', max_jobs => 2)") == 2
    assert one(session, "select tide.job_replay_many('mail')") == 1
    assert one(session, "select tide.job_replay_many('mail')") == 0
    again = worker.run()
    payloads = [one(session, "select payload -> 'n' from tide.job where id = %s", job) for job in again]
    assert payloads == [0, 2, 4, 3, 5, 1]
    with refused("22023", "jobs that are succeeded cannot be replayed by the queue"):
        session.execute("select tide.job_replay_many('mail', 'succeeded')")


def test_dead_jobs_are_removed_by_their_age(session: Session, worker: Worker) -> None:
    dead = [enqueue(session, idempotency_key=f"k{n}") for n in range(3)]
    worker.run(outcome="d")
    session.execute("update tide.job_dead set died_at = now() - interval '2 days' where id < %s", [dead[2]])
    assert one(session, "select tide.job_purge('mail', '1 day', max_jobs => 1)") == 1
    assert one(session, "select tide.job_purge('mail', '1 day')") == 1
    assert one(session, "select tide.job_purge('mail', '1 day')") == 0
    assert one(session, "select array_agg(id) from tide.job_list('mail', 'dead_letter')") == [dead[2]]
    assert enqueue(session, idempotency_key="k0") > dead[2]
    assert one(session, "select tide.job_purge('mail')") == 1


# Queues and numbers ------------------------------------------------------------------------------------------------


def test_a_queue_is_changed_where_it_is_said(session: Session) -> None:
    def queue() -> Any:
        columns = "paused, concurrency_limit, key_limit, rate, retention_hours, dead_retention_hours, max_payload_bytes"
        return session.execute(f"select {columns} from tide.job_queue_list()").fetchone()

    assert queue() == (False, None, None, None, 168, 720, 1048576)
    change = "select tide.job_queue_set('mail', %s)"
    session.execute(
        change, [Jsonb({"concurrency_limit": 5, "rate": 2.5, "retention_hours": 1, "max_payload_bytes": 99})]
    )
    assert queue() == (False, 5, None, 2.5, 1, 720, 99)
    session.execute(change, [Jsonb({"rate": None, "key_limit": 1, "config": {"a": 1}})])
    session.execute("select tide.job_queue_pause('mail')")
    assert queue() == (True, 5, 1, None, 1, 720, 99)
    assert one(session, "select config from tide.pipeline") == {"a": 1}
    with refused("22023", 'job queue "mail" has no setting colour, size', hint="concurrency_limit"):
        session.execute(change, [Jsonb({"size": 1, "colour": 2, "key_limit": 7})])
    with refused("22023", "must be a JSON object, not array"):
        session.execute(change, [Jsonb([])])
    with refused("22023"):
        session.execute(change, [Jsonb({"key_limit": 0})])
    assert queue() == (True, 5, 1, None, 1, 720, 99)


def test_only_who_configures_may_say_which_hosts_and_secrets_a_queue_uses(database: Database, session: Session) -> None:
    change = "select tide.job_queue_set('mail', %s)"
    with logins(database) as make:
        _, operator = make("grant_operator")
        _, admin = make("grant_admin")
        with psycopg.connect(operator, autocommit=True) as on_duty:
            on_duty.execute(change, [Jsonb({"concurrency_limit": 2})])
            with refused("42501", "may not change the configuration"):
                on_duty.execute(change, [Jsonb({"config": {"celery_url": "redis://${env:TIDE_SECRET_X}@evil.test"}})])
        with psycopg.connect(admin, autocommit=True) as configuring:
            configuring.execute(change, [Jsonb({"config": {"a": 1}})])
    assert one(session, "select config from tide.pipeline") == {"a": 1}


def test_the_numbers_of_a_queue(session: Session, worker: Worker) -> None:
    def numbers() -> Any:
        return session.execute(
            "select pending, due, scheduled, leased, dead, workers, paused from tide.job_stats('mail')"
        ).fetchone()

    assert numbers() == (0, 0, 0, 0, 0, 1, False)
    assert one(session, "select oldest_due_seconds from tide.job_stats('mail')") == 0
    for options in (
        {},
        {"priority": 3},
        {"priority": -3},
        {"run_key": "k"},
        {"available_at": "infinity"},
    ):
        enqueue(session, **options)
    enqueue_overdue(session)
    cancel(session, enqueue(session))
    assert numbers() == (6, 5, 1, 0, 0, 1, False)
    years = one(session, "select oldest_due_seconds from tide.job_stats('mail')") / 86_400 / 365
    assert 5 < years < 100
    claimed = worker.claim()
    assert numbers() == (1, 0, 1, 5, 0, 1, False)
    cancel(session, enqueue(session))
    assert numbers() == (1, 0, 1, 5, 0, 1, False)
    assert one(session, "select oldest_due_seconds from tide.job_stats('mail')") == 0, "what was cancelled is not late"
    worker.finish(claimed[:2], "d")
    worker.finish(claimed[2:], "r", retry_seconds=60)
    session.execute("select tide.job_queue_pause('mail')")
    session.execute("select tide.job_worker_start('here', 2, '{*}', 1), tide.job_worker_start('here', 3, '{other}', 1)")
    assert numbers()[5] == 2
    session.execute("update tide.job_worker set seen_at = now() - interval '2 minutes'")
    assert numbers() == (4, 0, 4, 0, 2, 0, True)
    session.execute("select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[15000]))")
    assert 15_004 <= numbers()[0] <= 15_020
    assert session.execute("select queue from tide.job_stats()").fetchall() == [("mail",)]
    with refused("42704", 'job queue "nope" does not exist'):
        session.execute("select * from tide.job_stats('nope')")
