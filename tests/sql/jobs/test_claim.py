"""Jobs in plain SQL: enqueued in a transaction, claimed, ended."""

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database

Session = psycopg.Connection[Any]


@pytest.fixture
def session(database: Database) -> Any:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        yield session


def enqueue(session: Session, payload: object = None, **options: object) -> int:
    named = "".join(f", {name} => %({name})s" for name in options)
    row = session.execute(
        f"select tide.job_enqueue('mail', 'send', %(payload)s{named})", {"payload": Jsonb(payload or {}), **options}
    ).fetchone()
    assert row
    return int(row[0])


def worker(session: Session) -> int:
    row = session.execute("select tide.job_worker_start('here', 1, '{mail}', 10)").fetchone()
    assert row
    return int(row[0])


def claim(session: Session, worker: int, want: int = 100) -> list[Any]:
    return session.execute(
        "select c.lease_id, c.id, c.attempt, c.priority, c.payload"
        " from tide.job_queue q, tide.job_claim(q.outbox_id, %s, %s) c where q.name = 'mail'",
        [worker, want],
    ).fetchall()


def finish(session: Session, worker: int, claimed: list[Any], outcome: str = "s") -> int:
    n = len(claimed)
    row = session.execute(
        'select tide.job_finish(%s, %s::bigint[], %s::bigint[], %s::smallint[], %s::"char"[], %s::int[])',
        [worker, [c[0] for c in claimed], [c[1] for c in claimed], [c[2] for c in claimed], [outcome] * n, [1] * n],
    ).fetchone()
    assert row
    return int(row[0])


def test_a_job_is_claimed_in_its_order_and_ended_once(session: Session) -> None:
    ids = [enqueue(session, {"n": n}) for n in range(3)]
    low, high = enqueue(session, priority=-5), enqueue(session, priority=7)
    later = enqueue(session, available_at="infinity")
    keyed = enqueue(session, run_key="tenant")
    session.commit()
    me = worker(session)
    claimed = claim(session, me)
    assert sorted(c[1] for c in claimed) == sorted([*ids, low, high, keyed])
    assert later not in [c[1] for c in claimed]
    assert claim(session, me) == []
    assert finish(session, me, claimed) == 0
    assert finish(session, me, claimed) == len(claimed)
    (left,) = session.execute("select count(*) from tide.job_lease").fetchone() or ()
    assert left == 0
    (attempts,) = session.execute("select count(*) from tide.job_attempt where outcome = 's'").fetchone() or ()
    assert attempts == 6
