"""The calls that users of earlier systems know, as those systems' documents show them: the outbox. Each block runs as
printed, and keeps what the text around it promises."""

import psycopg
import pytest

from tests.sql.reference.reference import rows, value

ENABLE_OUTBOX = "SELECT pgtrickle.enable_outbox('public.orders_agg', retention_hours => 48);"

CREATE_GROUPS = """
SELECT pgtrickle.create_consumer_group('analytics', 'public.orders_agg', auto_offset_reset => 'latest');
SELECT pgtrickle.create_consumer_group('notifications', 'public.orders_agg', auto_offset_reset => 'latest');
"""

POLL_AND_COMMIT = """
DO $$
DECLARE
r RECORD;
last_id BIGINT := 0;
BEGIN
FOR r IN
SELECT * FROM pgtrickle.poll_outbox('analytics', 'worker-1', batch_size => 50)
LOOP
-- process r.payload (JSONB with inserted/deleted row arrays)
last_id := r.outbox_id;
END LOOP;
IF last_id > 0 THEN
PERFORM pgtrickle.commit_offset('analytics', 'worker-1', last_id);
END IF;
END;
$$;
"""

CONSUMER_LAG = "SELECT * FROM pgtrickle.consumer_lag('analytics');"

SEEK_TO_THE_BEGINNING = "SELECT pgtrickle.seek_offset('my_group', 'worker-1', 0)"


@pytest.fixture
def db(database):
    with database.connect(row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@pytest.fixture
def orders_agg(db):
    """An ordinary table where the document has a stream table; both consumer groups."""
    db.execute("create table orders_agg (customer_id int primary key, total numeric, cnt bigint)")
    db.execute(ENABLE_OUTBOX)
    db.execute(CREATE_GROUPS)


def change(db):
    db.execute("insert into orders_agg values (1, 10, 1), (2, 20, 2)")
    db.execute("update orders_agg set total = 15 where customer_id = 1")


def test_changes_of_a_table_reach_each_group_and_a_commit_moves_one_of_them(db, orders_agg):
    assert value(db, "select retention_hours from pgtrickle.outbox_status('orders_agg')") == 48
    change(db)
    db.execute(POLL_AND_COMMIT)
    [lag] = rows(db, CONSUMER_LAG)
    assert (lag["outbox"], lag["lag"]) == ("public.orders_agg", 0)
    waiting = rows(db, "select * from pgtrickle.poll_outbox('notifications', 'worker-1')")
    assert [row["payload"]["op"] for row in waiting] == ["insert", "update"]
    inserted, updated = (row["payload"] for row in waiting)
    assert inserted["inserted"] == [
        {"customer_id": 1, "total": 10, "cnt": 1},
        {"customer_id": 2, "total": 20, "cnt": 2},
    ]
    assert inserted["deleted"] == []
    assert [row["total"] for row in updated["deleted"] + updated["inserted"]] == [10, 15]


def test_a_group_that_begins_at_the_latest_does_not_see_what_was_before(db, orders_agg):
    change(db)
    db.execute("select pgtrickle.create_consumer_group('later', 'public.orders_agg', auto_offset_reset => 'latest')")
    assert rows(db, "select * from pgtrickle.poll_outbox('later', 'w')") == []


def test_what_is_not_committed_is_delivered_again(db, orders_agg):
    change(db)
    poll = "select outbox_id from pgtrickle.poll_outbox('analytics', %s, visibility_seconds => 1)"
    first = rows(db, poll, "worker-1")
    assert len(first) == 2
    assert rows(db, poll, "worker-2") == [], "worker-1 has it"
    # As if its lease had run out.
    db.execute("update tide.consumer_lease set lease_until = now() - interval '1 second'")
    assert rows(db, poll, "worker-2") == first


def test_seeking_replays_from_the_beginning(db, orders_agg):
    db.execute("select pgtrickle.create_consumer_group('my_group', 'public.orders_agg')")
    change(db)
    db.execute(POLL_AND_COMMIT.replace("analytics", "my_group"))
    assert rows(db, "select * from pgtrickle.poll_outbox('my_group', 'worker-1')") == []
    db.execute(SEEK_TO_THE_BEGINNING)
    assert len(rows(db, "select * from pgtrickle.poll_outbox('my_group', 'worker-1')")) == 2


def test_a_consumer_keeps_what_it_works_on_for_longer(db, orders_agg):
    change(db)
    rows(db, "select * from pgtrickle.poll_outbox('analytics', 'worker-1', visibility_seconds => 5)")
    db.execute("select pgtrickle.extend_lease('analytics', 'worker-1', extension_seconds => 600)")
    db.execute("select pgtrickle.consumer_heartbeat('analytics', 'worker-1')")
    assert value(db, "select min(lease_until) > now() + interval '500 seconds' from tide.consumer_lease") is True


def test_a_table_is_found_with_its_schema_and_without(db, orders_agg):
    db.execute("select pgtrickle.create_consumer_group('short', 'orders_agg')")
    assert value(db, "select outbox from pgtrickle.consumer_lag('short')") == "public.orders_agg"
    for name in ("nowhere", "a.b.c.d"):
        with pytest.raises(psycopg.errors.UndefinedObject, match=name):
            db.execute("select pgtrickle.create_consumer_group('x', %s)", [name])


def test_an_outbox_that_is_disabled_publishes_nothing_more(db, orders_agg):
    db.execute("select pgtrickle.disable_outbox('public.orders_agg')")
    change(db)
    assert rows(db, "select * from pgtrickle.poll_outbox('analytics', 'worker-1')") == []
