"""The calls that users of earlier systems know, as those systems' documents show them: each block runs as printed, and
keeps what the text around it promises."""

import json

import psycopg
import pytest

from relay.pipelines import ForwardConfig, ReverseConfig, parse

SET_RELAY_OUTBOX = """
SELECT pgtrickle.set_relay_outbox(
    'orders-to-nats',
    config => '{
        "stream_table": "orders_stream",
        "sink_type": "nats",
        "nats_url": "nats://localhost:4222",
        "nats_stream": "pgtrickle",
        "subject_template": "pgtrickle.{stream_table}.{op}"
    }'::jsonb
);
"""
ENABLE_RELAY_OUTBOX = "SELECT pgtrickle.enable_relay('orders-to-nats');"

SET_RELAY_INBOX = """
SELECT pgtrickle.set_relay_inbox(
    'nats-to-orders-inbox',
    config => '{
        "source_type": "nats",
        "nats_url": "nats://localhost:4222",
        "nats_stream": "commands",
        "nats_consumer": "relay-consumer",
        "inbox_table": "orders_inbox"
    }'::jsonb
);
"""
ENABLE_RELAY_INBOX = "SELECT pgtrickle.enable_relay('nats-to-orders-inbox');"

LIST_RELAYS = "SELECT * FROM pgtrickle.list_relay_configs();"
DISABLE_RELAY = "SELECT pgtrickle.disable_relay('orders-to-nats');"
DELETE_RELAY = "SELECT pgtrickle.delete_relay('orders-to-nats');"

TIDE_SET_OUTBOX = """
SELECT tide.relay_set_outbox(
    'orders-pipeline',      -- pipeline name
    'orders',               -- outbox name (this IS the source)
    'relay-consumer',       -- consumer group name
    '{
        "sink_type": "kafka",
        "brokers": "localhost:9092",
        "topic": "order-events",
        "batch_size": 100,
        "poll_interval_ms": 1000
    }'::jsonb
);
"""
TIDE_TWO_GROUPS = """
SELECT tide.relay_set_outbox('to-kafka', 'orders', 'kafka-group', '{"sink_type": "kafka", ...}'::jsonb);
SELECT tide.relay_set_outbox('to-s3', 'orders', 's3-group', '{"sink_type": "object_storage", ...}'::jsonb);
"""
TIDE_GET_CONFIG = "SELECT tide.relay_get_config('orders-pipeline')"

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


def rows(db, statement, *parameters):
    return db.execute(statement, parameters or None).fetchall()


def value(db, statement, *parameters):
    [row] = rows(db, statement, *parameters)
    [found] = row.values()
    return found


def relay(db, name):
    [found] = [row for row in rows(db, LIST_RELAYS) if row["name"] == name]
    return found


# The relay -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def orders_stream(db):
    """An ordinary table where the document has a stream table."""
    db.execute("create table orders_stream (id int primary key, total numeric)")
    db.execute("select pgtrickle.enable_outbox('orders_stream')")


def test_a_forward_pipeline_is_registered_and_runs_once_it_is_enabled(db, orders_stream):
    db.execute(SET_RELAY_OUTBOX)
    assert relay(db, "orders-to-nats")["status"] == "disabled"
    db.execute(ENABLE_RELAY_OUTBOX)
    found = relay(db, "orders-to-nats")
    assert (found["status"], found["outbox"], found["direction"]) == ("enabled", "public.orders_stream", "forward")
    config = parse(found["config"])
    assert isinstance(config, ForwardConfig)
    assert config.subject_template == "pgtrickle.{stream_table}.{op}"
    assert (config.sink.url, config.sink.stream) == (["nats://localhost:4222"], "pgtrickle")


def test_a_reverse_pipeline_is_registered_and_runs_once_it_is_enabled(db):
    db.execute("select pgtrickle.create_inbox('orders_inbox')")
    db.execute(SET_RELAY_INBOX)
    assert relay(db, "nats-to-orders-inbox")["status"] == "disabled"
    db.execute(ENABLE_RELAY_INBOX)
    found = relay(db, "nats-to-orders-inbox")
    assert (found["status"], found["inbox"], found["direction"]) == ("enabled", "orders_inbox", "reverse")
    config = parse(found["config"])
    assert isinstance(config, ReverseConfig)
    assert (config.source.stream, config.source.consumer) == ("commands", "relay-consumer")


def test_pipelines_are_listed_disabled_and_deleted(db, orders_stream):
    db.execute(SET_RELAY_OUTBOX)
    db.execute(ENABLE_RELAY_OUTBOX)
    assert [row["name"] for row in rows(db, LIST_RELAYS)] == ["orders-to-nats"]
    db.execute(DISABLE_RELAY)
    assert relay(db, "orders-to-nats")["enabled"] is False
    db.execute(DELETE_RELAY)
    assert rows(db, LIST_RELAYS) == []


def test_what_is_set_again_goes_on_as_it_was(db, orders_stream):
    db.execute(SET_RELAY_OUTBOX)
    db.execute(ENABLE_RELAY_OUTBOX)
    db.execute(SET_RELAY_OUTBOX)
    assert relay(db, "orders-to-nats")["enabled"] is True


def test_every_change_is_told_on_the_channel_of_old(database, db, orders_stream):
    with database.connect() as listener:
        listener.execute("listen pgtrickle_relay_config")
        for statement in (SET_RELAY_OUTBOX, ENABLE_RELAY_OUTBOX, DISABLE_RELAY, DELETE_RELAY):
            db.execute(statement)
            [told] = listener.notifies(timeout=5, stop_after=1)
            assert told.payload == "orders-to-nats"


@pytest.mark.parametrize("config", ["{}", '{"stream_table": 5}', "[]", '"text"'])
def test_a_configuration_without_a_table_is_refused(db, config):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="stream_table"):
        db.execute("select pgtrickle.set_relay_outbox('p', %s)", [config])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="inbox_table"):
        db.execute("select pgtrickle.set_relay_inbox('p', %s)", [config])


# The outbox as a source ----------------------------------------------------------------------------------------------


def test_an_outbox_is_the_source_of_a_pipeline_of_its_consumer_group(db):
    db.execute("select tide.outbox_create('orders')")
    db.execute(TIDE_SET_OUTBOX)
    found = value(db, TIDE_GET_CONFIG)
    assert (found["outbox"], found["consumer_group"], found["enabled"]) == ("orders", "relay-consumer", True)
    config = parse(found["config"])
    assert isinstance(config, ForwardConfig)
    assert (config.pipeline.batch_size, config.pipeline.poll_interval_ms) == (100, 1000)


def test_two_pipelines_read_one_outbox_independently(db):
    db.execute("select tide.outbox_create('orders')")
    # The document leaves the rest of the configuration out.
    db.execute(TIDE_TWO_GROUPS.replace('"kafka", ...', '"kafka"').replace('"object_storage", ...', '"object_storage"'))
    found = rows(db, "select name, consumer_group from tide.relay_list_configs()")
    assert found == [
        {"name": "to-kafka", "consumer_group": "kafka-group"},
        {"name": "to-s3", "consumer_group": "s3-group"},
    ]
    db.execute("update tide.consumer_group set offset_id = 5 where name = 'kafka-group'")
    assert value(db, "select offset_id from tide.consumer_group where name = 's3-group'") == 0


# The transactional outbox --------------------------------------------------------------------------------------------


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


# The transactional inbox ---------------------------------------------------------------------------------------------


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
