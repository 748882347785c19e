"""What becomes of a run whose handler completed its job in a transaction of its own: the transaction decides."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest

from relay.jobs import Context, job
from relay.jobs.models import Claimed
from relay.jobs.testing import own_handlers
from tests.services.postgres import Database
from workers.jobs.run import make_context, returned
from workers.jobs.store import Done, _finish


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    with own_handlers():
        yield


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("max_attempts", [1, 5])
def test_a_job_that_its_handler_completed_has_succeeded_if_the_handler_committed(
    database: Database, commits: bool, max_attempts: int
) -> None:
    @job
    def pay(context: Context) -> None:
        with psycopg.connect(database.url) as connection:
            context.complete(connection, {"paid": True})
            if not commits:
                connection.rollback()

    with database.connect() as session:
        session.execute("select tide.job_queue_create('q')")
        session.execute("select tide.job_enqueue('q', 'pay', max_attempts => %s)", [max_attempts])
        [(worker,)] = session.execute("select tide.job_worker_start('here', 1, '{q}', 1)").fetchall()
        [row] = session.execute(
            "select c.lease_id, c.id from tide.job_queue q, tide.job_claim(q.outbox_id, %s, 1) c", [worker]
        ).fetchall()
        claimed = _claimed(int(row[0]), int(row[1]), max_attempts)
        context = make_context(claimed, 30)
        result = pay.run("{}", context)
        ended = returned(pay, context, claimed, result)
        done = Done(claimed, ANY, 1, ended)
        statement, parameters = _finish(worker, [done])
        session.execute(statement, parameters)
        state = "succeeded" if commits else "dead_letter" if max_attempts == 1 else "pending"
        assert session.execute("select tide.job_state('q', 1)").fetchall() == [(state,)]
        [(result_kept, code)] = session.execute("select result, code from tide.job_attempt").fetchall()
        assert (result_kept, code) == (({"paid": True}, None) if commits else (None, "not_committed"))


def _claimed(lease_id: int, number: int, max_attempts: int) -> Any:
    return Claimed(
        queue="q", outbox_id=1, lease_id=lease_id, id=number, attempt=1, kind="p", name="pay", priority=0,
        timeout_seconds=30, max_attempts=max_attempts, created_us=0, due_us=0, payload="{}", headers=None,
        metadata=None, options=None, idempotency_key=None, run_key=None, trace_id=None,
    )  # fmt: skip
