"""A job that is no more than its handler and its arguments goes a shorter way, to the same end."""

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, enqueue, one, uuid_of
from tests.sql.support import listen

pytestmark = pytest.mark.each_postgres

PLAIN = "select tide.job_enqueue_plain(%s, %s, %s)"
ROW = "select to_jsonb(j) - 'id' - 'created_at' from tide.job j where j.id = %s"


def test_it_is_the_job_that_the_long_way_enqueues(session: Session) -> None:
    long = enqueue(session, {"n": 1})
    short = str(one(session, PLAIN, "mail", "send", Jsonb({"n": 1})))
    assert short == uuid_of(session, long + 1)
    assert one(session, ROW, long + 1) == one(session, ROW, long)
    one(session, PLAIN, "mail", "send", None)
    assert one(session, "select payload from tide.job where id = %s", long + 2) is None, "the null of JSON"


@pytest.mark.parametrize(
    ("queue", "name", "payload", "disabled", "code"),
    [
        ("other", "send", {}, False, "42704"),
        ("mail", "", {}, False, "22023"),
        ("mail", "send", {"text": "x" * 2000}, False, "54000"),
        ("mail", "send", {}, True, "55000"),
    ],
)
def test_it_is_refused_for_the_same_reasons(
    session: Session, queue: str, name: str, payload: dict[str, Any], disabled: bool, code: str
) -> None:
    session.execute("select tide.job_queue_set('mail', %s)", [Jsonb({"max_payload_bytes": 1000})])
    if disabled:
        session.execute("select tide.outbox_disable('jobs/mail')")
    for statement in (PLAIN, "select tide.job_enqueue(%s, %s, %s)"):
        with pytest.raises(psycopg.Error) as refused:
            session.execute(statement.encode(), [queue, name, Jsonb(payload)])
        assert refused.value.sqlstate == code
    assert one(session, "select count(*) from tide.job") == 0


def test_each_transaction_has_its_mark_and_rings_after_a_savepoint_too(database: Database, session: Session) -> None:
    with database.connect() as other:
        listen(other)
        with session.transaction():
            with session.transaction(force_rollback=True):
                one(session, PLAIN, "mail", "send", Jsonb({}))
            for _ in range(2):
                one(session, PLAIN, "mail", "send", Jsonb({}))
            assert one(other, "select count(*) from tide.mark where publishes") == 1
        session.execute("notify tide_outbox_notify, 'until here'")
        found = [each.payload for each in other.notifies(timeout=10, stop_after=2)]
    assert found == ["jobs/mail", "until here"]
