"""Consumer groups are made, kept apart from pipelines, and dropped; arguments that make no sense are refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.consumers.consumers import commit, consumer_group, lag, offset, one, poll
from tests.sql.support import make_outbox, make_pipeline, publish, publish_many, refused
from tests.waiting import wait_until


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


def test_a_group_begins_with_the_oldest_message(db):
    publish_many(db, 3)
    consumer_group(db)
    assert poll(db, "a") == [1, 2, 3]


def test_the_latest_is_what_is_committed_from_now_on(db, database):
    publish_many(db, 3)
    with database.connect() as slow:
        slow.execute("begin")
        assert publish(slow) == 4
        publish_many(db, 2)
        consumer_group(db, auto_offset_reset="latest")
        assert offset(db) == 3
        slow.execute("commit")
    assert poll(db, "a") == [4, 5, 6]


def test_a_group_is_created_once(db):
    consumer_group(db)
    with refused("42710", 'consumer group "g" exists already: a polled group of outbox "orders"', hint="if_not_exists"):
        consumer_group(db)
    publish_many(db, 3)
    poll(db, "a")
    commit(db, "a", 3)
    consumer_group(db, if_not_exists=True)
    assert offset(db) == 3


def test_the_name_of_a_polled_group_is_its_own_in_the_database(db):
    make_outbox(db, "other")
    consumer_group(db)
    for if_not_exists in (False, True):
        with refused("42710", 'a polled group of outbox "orders"', hint="another name"):
            consumer_group(db, outbox="other", if_not_exists=if_not_exists)


def test_sessions_that_create_the_same_group_at_once_wait_for_each_other(db, database):
    with database.connect() as first, database.connect() as second, ThreadPoolExecutor() as pool:
        first.execute("begin")
        consumer_group(first)
        creating = pool.submit(consumer_group, second, if_not_exists=True)
        wait_until(lambda: one(db, "select cardinality(pg_blocking_pids(%s)) > 0", second.info.backend_pid))
        first.execute("commit")
        creating.result()
    assert one(db, "select count(*) from tide.consumer_group") == 1


def test_a_group_of_a_pipeline_is_not_polled(db, database):
    make_pipeline(database, "p")
    with refused("42710", 'the group of a pipeline, or of another database, of outbox "orders"'):
        consumer_group(db, "p", if_not_exists=True)
    with refused("42704", 'consumer group "p" does not exist', hint="pipeline has a group of this name"):
        poll(db, "a", group="p")
    with refused("42704"):
        db.execute("select tide.drop_consumer_group('p')")


@pytest.mark.parametrize("call", ["('p', 'orders', 'g', %s)", "('g', 'orders', %s)"])
def test_a_polled_group_is_not_read_by_a_pipeline(db, call):
    consumer_group(db)
    with refused("42710", 'consumer group "g" is polled by consumers: pipeline', hint="of its own"):
        db.execute(f"select tide.relay_set_outbox{call}", ['{"sink_type": "memory"}'])
    assert one(db, "select count(*) from tide.bell") == 0


def test_a_pipeline_does_not_move_to_a_polled_group(db, database):
    make_pipeline(database, "p")
    consumer_group(db)
    with refused("42710", 'pipeline "p" cannot read it'):
        db.execute("select tide.relay_set_outbox('p', 'orders', 'g', '{\"sink_type\": \"memory\"}')")


def test_the_name_of_a_group_may_be_that_of_a_pipeline_of_another_outbox(db, database):
    make_pipeline(database, "p", "other")
    consumer_group(db, "p")
    publish(db)
    assert poll(db, "a", group="p") == [1]


def test_a_group_is_dropped_with_all_that_it_holds(db):
    consumer_group(db)
    publish_many(db, 3)
    poll(db, "a")
    db.execute("select tide.drop_consumer_group('g')")
    for table in ("consumer_group", "consumer", "consumer_lease"):
        assert one(db, f"select count(*) from tide.{table}") == 0
    assert one(db, "select count(*) from tide.message") == 3


def test_dropping_what_is_not_there(db):
    db.execute("select tide.drop_consumer_group('g', if_exists => true)")
    with refused("42704", 'consumer group "g" does not exist'):
        db.execute("select tide.drop_consumer_group('g')")


def test_an_outbox_that_is_polled_is_not_dropped(db):
    consumer_group(db)
    consumer_group(db, "h-1")
    with refused("2BP01", 'outbox "orders" is polled by consumer groups: g, "h-1"', hint="drop_consumer_group"):
        db.execute("select tide.outbox_drop('orders')")
    db.execute("select tide.drop_consumer_group('g'), tide.drop_consumer_group('h-1')")
    db.execute("select tide.outbox_drop('orders')")


def test_a_consumer_of_a_group_that_is_dropped_meanwhile_is_told(db, database):
    consumer_group(db)
    with database.connect() as dropping, database.connect() as consumer, ThreadPoolExecutor() as pool:
        for call in ("tide.poll_outbox('g', 'a')", "tide.consumer_heartbeat('g', 'a')"):
            db.execute("select tide.create_consumer_group('g', 'orders', if_not_exists => true)")
            dropping.execute("begin")
            dropping.execute("select tide.drop_consumer_group('g')")
            calling = pool.submit(consumer.execute, f"select {call}")
            wait_until(lambda: one(db, "select cardinality(pg_blocking_pids(%s)) > 0", consumer.info.backend_pid))
            dropping.execute("commit")
            with refused("42704", 'consumer group "g" does not exist'):
                calling.result()


CALLS = [
    "tide.poll_outbox('no', 'a')",
    "tide.commit_offset('no', 'a', 1)",
    "tide.extend_lease('no', 'a')",
    "tide.seek_offset('no', 'a', 0)",
    "tide.consumer_heartbeat('no', 'a')",
    "tide.consumer_lag('no')",
    "tide.consumer_status('no')",
    "tide.drop_consumer_group('no')",
]

REFUSALS = [
    ("tide.create_consumer_group('a b', 'orders')", "42602", "consumer group name 'a b' is not valid"),
    ("tide.create_consumer_group(null, 'orders')", "42602", "consumer group name NULL is not valid"),
    ("tide.create_consumer_group('h', 'no')", "42704", 'outbox "no" does not exist'),
    ("tide.create_consumer_group('h', 'orders', 'first')", "22023", "is 'first'"),
    ("tide.create_consumer_group('h', 'orders', null)", "22023", "is NULL"),
    ("tide.poll_outbox(null, 'a')", "42704", "consumer group NULL does not exist"),
    ("tide.drop_consumer_group(null)", "42704", "consumer group NULL does not exist"),
    ("tide.poll_outbox('g', null)", "42602", "consumer name NULL is not valid"),
    ("tide.poll_outbox('g', ' ')", "42602", "consumer name ' ' is not valid"),
    ("tide.poll_outbox('g', repeat('x', 201))", "42602", "is not valid"),
    ("tide.consumer_heartbeat('g', '')", "42602", "consumer name '' is not valid"),
    ("tide.poll_outbox('g', 'a', 0)", "22023", "batch_size is 0"),
    ("tide.poll_outbox('g', 'a', 10001)", "22023", "batch_size is 10001"),
    ("tide.poll_outbox('g', 'a', null)", "22023", "batch_size is NULL"),
    ("tide.poll_outbox('g', 'a', 1, 0)", "22023", "visibility_seconds is 0"),
    ("tide.poll_outbox('g', 'a', 1, 43201)", "22023", "visibility_seconds is 43201"),
    ("tide.poll_outbox('g', 'a', 1, null)", "22023", "visibility_seconds is NULL"),
    ("tide.commit_offset('g', 'a', null)", "22023", "last_offset is NULL"),
    ("tide.commit_offset('g', 'a', -1)", "22023", "last_offset is -1"),
    ("tide.extend_lease('g', 'a', 0)", "22023", "extension_seconds is 0"),
    ("tide.seek_offset('g', 'a', null)", "22023", 'consumer group "g" cannot be set to NULL'),
    ("tide.seek_offset('g', 'a', -1)", "22023", "cannot be set to -1"),
    ("tide.seek_offset('g', 'a', 1)", "22023", "cannot be set to 1"),
]


def test_every_call_names_the_group_that_is_missing(db):
    for call in CALLS:
        with refused("42704", 'consumer group "no" does not exist', hint="tide.create_consumer_group"):
            db.execute(f"select {call}")


def test_arguments_that_make_no_sense_are_refused(db):
    consumer_group(db)
    for call, sqlstate, text in REFUSALS:
        with refused(sqlstate, text):
            db.execute(f"select {call}")
    assert one(db, "select count(*) from tide.consumer") == 0


def test_a_consumer_may_have_any_name(db):
    consumer_group(db)
    publish_many(db, 2)
    for message, name in enumerate(['wörker "1"; drop table x; --\'', "x" * 200], start=1):
        assert poll(db, name, 1) == [message]
        assert commit(db, name, message) == message
    assert lag(db)["consumers"] == 2


def test_the_largest_arguments_are_allowed(db):
    consumer_group(db)
    publish_many(db, 2)
    assert poll(db, "a", 10000, seconds=43200) == [1, 2]
