"""The calls that users of earlier systems know, as those systems' documents show them: the relay. Each block runs as
printed, and keeps what the text around it promises."""

import psycopg
import pytest

from relay.pipelines.config import ForwardConfig, ReverseConfig, parse
from tests.sql.reference.reference import rows, value
from tests.sql.security.logins import logins

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


@pytest.fixture
def db(database):
    with database.connect(row_factory=psycopg.rows.dict_row) as connection:
        yield connection


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


def test_an_outbox_that_is_named_and_not_there_is_made(db):
    db.execute(SET_RELAY_OUTBOX)
    db.execute(ENABLE_RELAY_OUTBOX)
    assert relay(db, "orders-to-nats")["outbox"] == "orders_stream"
    db.execute("select tide.outbox_publish('orders_stream', '{}')")
    assert value(db, "select last_id from pgtrickle.outbox_status('orders_stream')") == 1


def test_a_table_that_is_named_as_stream_table_becomes_an_outbox(db):
    db.execute("create schema shop; create table shop.orders_stream (id int primary key); set search_path = shop")
    db.execute(SET_RELAY_OUTBOX)
    assert relay(db, "orders-to-nats")["outbox"] == "shop.orders_stream"
    db.execute("insert into orders_stream values (1)")
    assert value(db, "select payload ->> 'op' from tide.message") == "insert"
    db.execute(SET_RELAY_OUTBOX)
    assert len(rows(db, "select from tide.outbox")) == 1


def test_what_is_named_as_an_outbox_is_no_table(db):
    db.execute("create table orders_stream (id int primary key)")
    db.execute(SET_RELAY_OUTBOX.replace('stream_table"', 'outbox"'))
    assert relay(db, "orders-to-nats")["outbox"] == "orders_stream"
    assert rows(db, "select from tide.table_outbox") == []


def test_an_inbox_that_is_named_and_not_there_is_made(db):
    db.execute(SET_RELAY_INBOX)
    db.execute(ENABLE_RELAY_INBOX)
    db.execute(SET_RELAY_INBOX)
    assert relay(db, "nats-to-orders-inbox")["inbox"] == "orders_inbox"
    assert rows(db, "select * from pgtrickle.orders_inbox_pending") == []


def test_nothing_is_made_for_a_pipeline_that_is_refused_or_by_who_may_not(database, db):
    with pytest.raises(psycopg.Error):
        db.execute(SET_RELAY_OUTBOX.replace("'orders-to-nats'", "'no name'"))
    with logins(database) as login:
        db.execute("create table orders_stream (id int primary key)")
        for grant in ("grant_operator", "grant_admin"):  # an admin is not the owner of the table
            with (
                psycopg.connect(login(grant)[1], autocommit=True) as other,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                other.execute(SET_RELAY_OUTBOX)
    assert rows(db, "select from tide.outbox") == rows(db, "select from tide.pipeline") == []


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
