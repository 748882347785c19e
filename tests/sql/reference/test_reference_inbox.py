"""The calls that users of earlier systems know, as those systems' documents show them: the inbox. Each block runs as
printed, and keeps what the text around it promises."""

import json

import psycopg
import pytest

from tests.sql.reference.reference import rows, value

CREATE_INBOX = """
SELECT pgtrickle.create_inbox(
'orders_inbox',
schema => 'pgtrickle',
max_retries => 3,
with_dead_letter => true,
with_stats => true,
schedule_seconds => 5
);
"""

INSERT_EVENT = """
INSERT INTO pgtrickle.orders_inbox (event_id, event_type, aggregate_id, payload)
VALUES (
gen_random_uuid()::text,
'order.placed',
'customer-123',
'{"order_id": 42, "amount": 99.50}'::jsonb
);
"""

MARK_PROCESSED = """
UPDATE pgtrickle.orders_inbox
SET processed_at = now()
WHERE event_id = '<event_id>'
AND processed_at IS NULL;
"""

INBOX_HEALTH = "SELECT pgtrickle.inbox_health('orders_inbox');"

REPLAY_FAILED = """
SELECT pgtrickle.replay_inbox_messages(
'orders_inbox',
ARRAY['event-id-1', 'event-id-2']
);
"""

ENABLE_ORDERING = """
SELECT pgtrickle.enable_inbox_ordering(
'orders_inbox',
aggregate_id_col => 'aggregate_id',
seq_col => 'event_sequence'
);
"""

NEXT_MESSAGES = "SELECT * FROM pgtrickle.next_orders_inbox;"

MY_PARTITION = """
SELECT * FROM pgtrickle.orders_inbox_pending
WHERE pgtrickle.inbox_is_my_partition(aggregate_id, 0, 4);
"""


@pytest.fixture
def db(database):
    with database.connect(row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@pytest.fixture
def orders_inbox(db):
    db.execute(CREATE_INBOX)


def fail(db, event_id, times):
    for _ in range(times):
        db.execute("select tide.inbox_mark_failed('orders_inbox', %s, 'broken')", [event_id])


def test_an_event_is_pending_until_it_is_marked(db, orders_inbox):
    db.execute(INSERT_EVENT)
    [pending] = rows(db, "select * from pgtrickle.orders_inbox_pending")
    assert (pending["event_type"], pending["payload"]) == ("order.placed", {"order_id": 42, "amount": 99.5})
    mark = MARK_PROCESSED.replace("<event_id>", pending["event_id"])
    assert db.execute(mark).rowcount == 1
    assert db.execute(mark).rowcount == 0, "it is marked once"
    assert rows(db, "select * from pgtrickle.orders_inbox_pending") == []


def test_an_event_is_kept_once(db, orders_inbox):
    db.execute(INSERT_EVENT.replace("gen_random_uuid()::text", "'event-1'"))
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(INSERT_EVENT.replace("gen_random_uuid()::text", "'event-1'"))


def test_failed_messages_are_dead_and_can_be_replayed(db, orders_inbox):
    for number in (1, 2, 3):
        db.execute(INSERT_EVENT.replace("gen_random_uuid()::text", f"'event-id-{number}'"))
        fail(db, f"event-id-{number}", 3)
    assert value(db, "select count(*) from pgtrickle.orders_inbox_dlq") == 3
    assert value(db, REPLAY_FAILED) == 2
    assert {row["event_id"] for row in rows(db, "select * from pgtrickle.orders_inbox_pending")} == {
        "event-id-1",
        "event-id-2",
    }
    assert [row["event_id"] for row in rows(db, "select * from pgtrickle.orders_inbox_dlq")] == ["event-id-3"]


def test_counts_by_type_are_there_at_once(db, orders_inbox):
    db.execute(INSERT_EVENT)
    [stats] = rows(db, "select * from pgtrickle.orders_inbox_stats")
    assert (stats["event_type"], stats["pending"]) == ("order.placed", 1)


def test_the_health_of_an_inbox_is_told(db, orders_inbox):
    db.execute(INSERT_EVENT)
    health = value(db, INBOX_HEALTH)
    assert (health["status"], health["pending"]) == ("healthy", 1)


def test_only_the_next_message_of_each_aggregate_is_shown(db, orders_inbox):
    db.execute(ENABLE_ORDERING)
    for aggregate, sequence in (("a", 2), ("a", 1), ("b", 1), ("a", 3)):
        db.execute(
            "insert into pgtrickle.orders_inbox (event_id, aggregate_id, event_sequence, payload)"
            " values (%s, %s, %s, '{}')",
            [f"{aggregate}-{sequence}", aggregate, sequence],
        )
    assert {row["event_id"] for row in rows(db, NEXT_MESSAGES)} == {"a-1", "b-1"}
    db.execute(MARK_PROCESSED.replace("<event_id>", "a-1"))
    assert {row["event_id"] for row in rows(db, NEXT_MESSAGES)} == {"a-2", "b-1"}


def test_each_aggregate_belongs_to_one_worker(db, orders_inbox):
    db.execute(
        "insert into pgtrickle.orders_inbox (event_id, aggregate_id, payload)"
        " select n::text, 'customer-' || n, '{}' from generate_series(1, 200) n"
    )
    shares = [
        {row["event_id"] for row in rows(db, MY_PARTITION.replace("0, 4", f"{worker}, 4"))} for worker in range(4)
    ]
    assert sum(map(len, shares)) == 200
    assert len(set().union(*shares)) == 200
    assert min(map(len, shares)) > 20


def test_the_relay_writes_into_it(db, orders_inbox):
    written = value(
        db,
        "select tide.inbox_write('orders_inbox', '{e1,e1}', '{t,t}', '{s,s}', '{a,a}', '{1,1}', %s,"
        " '{null,null}', '{null,null}')",
        [json.dumps({"n": 1})] * 2,
    )
    assert written == 1
    assert value(db, "select payload from pgtrickle.orders_inbox") == {"n": 1}
