"""Jobs in plain SQL: enqueued in a transaction, claimed, ended; priorities, limits, keys, and who waits for whom."""

from typing import Any

import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one


@pytest.fixture
def session(database: Database) -> Any:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        yield session


def test_a_job_is_claimed_in_its_order_and_ended_once(session: Session) -> None:
    ids = [enqueue(session, {"n": n}) for n in range(3)]
    low, high = enqueue(session, priority=-5), enqueue(session, priority=7)
    later = enqueue(session, available_at="infinity")
    keyed = enqueue(session, run_key="tenant")
    session.commit()
    me = Worker(session)
    claimed = me.claim()
    assert sorted(c[1] for c in claimed) == sorted([*ids, low, high, keyed])
    assert later not in [c[1] for c in claimed]
    assert me.claim() == []
    assert me.finish(claimed) == 0
    assert me.finish(claimed) == len(claimed)
    assert one(session, "select count(*) from tide.job_lease") == 0
    assert one(session, "select count(*) from tide.job_attempt where outcome = 's'") == 6
