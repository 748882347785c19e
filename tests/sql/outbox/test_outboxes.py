"""Outboxes: create, drop, enable, disable, status."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.support import Follower, make_pipeline, publish, publish_many, reader_of, refused
from tests.waiting import wait_until


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


def call(connection, statement, *parameters):
    """The one value of a SELECT of the given expression."""
    return connection.execute(f"select {statement}", parameters).fetchone()[0]


def options(connection):
    return connection.execute("select retention_hours, max_payload_bytes, partition_size from tide.outbox").fetchone()


def status(connection, name="orders"):
    cursor = connection.execute("select * from tide.outbox_status(%s)", [name])
    return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


def relations(connection):
    """Every table and sequence of the schema."""
    names = connection.execute("select relname from pg_class where relnamespace = 'tide'::regnamespace order by 1")
    return [name for (name,) in names]


def test_defaults(db):
    db.execute("select tide.outbox_create('orders')")
    assert db.execute(
        "select enabled, retention_hours, max_payload_bytes, partition_size from tide.outbox"
    ).fetchall() == [(True, 24, 1048576, 1000000)]
    assert publish(db) == 1


def test_every_parameter_has_a_name(db):
    call(
        db,
        "tide.outbox_create(name => 'orders', retention_hours => 0, max_payload_bytes => 100, partition_size => 2000)",
    )
    assert options(db) == (0, 100, 2000)


def test_the_sequence_of_ids_caches_nothing(db):
    call(db, "tide.outbox_create('orders')")
    sequences = db.execute("select seqcache, seqcycle from pg_sequence join tide.outbox on seqrelid = ids")
    assert sequences.fetchall() == [(1, False)]


@pytest.mark.parametrize("name", ["a", "Orders_2.eu-west", "_x", "9", "n" * 100])
def test_good_names(db, name):
    call(db, "tide.outbox_create(%s)", name)
    assert call(db, "tide.outbox_publish(%s, '1')", name) == 1


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a'b", 'a"b', "a;b", "ä", "n" * 101, "a\nb", "a\n", None])
def test_bad_names(db, name):
    with refused("42602", "is not valid", hint="1 to 100 letters"):
        call(db, "tide.outbox_create(%s)", name)
    with refused("42602", "is not valid"):
        call(db, "tide.outbox_create_if_not_exists(%s)", name)


@pytest.mark.parametrize(
    "option",
    ["retention_hours => -1", "max_payload_bytes => 0", "max_payload_bytes => 268435457", "partition_size => 999"],
)
def test_values_out_of_range_name_the_column(db, option):
    with refused("23514", f"outbox_{option.split()[0]}_check"):
        call(db, f"tide.outbox_create('orders', {option})")


def test_creating_twice_is_refused_and_says_what_to_call_instead(db):
    call(db, "tide.outbox_create('orders')")
    with refused("42710", 'outbox "orders" exists already', hint="tide.outbox_create_if_not_exists"):
        call(db, "tide.outbox_create('orders')")


def test_create_if_not_exists_says_whether_it_did_and_changes_nothing_that_is_there(db):
    assert call(db, "tide.outbox_create_if_not_exists('orders', 48, 100, 2000)") is True
    assert call(db, "tide.outbox_create_if_not_exists('orders', 1)") is False
    assert options(db) == (48, 100, 2000)


def test_create_if_not_exists_from_many_sessions_creates_one(database):
    def create(_):
        with database.connect() as connection:
            return call(connection, "tide.outbox_create_if_not_exists('orders')")

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [False] * 7 + [True]


def test_of_two_sessions_that_create_at_the_same_moment_one_is_refused(database, db):
    with database.connect() as second, ThreadPoolExecutor(1) as pool:
        db.execute("begin")
        call(db, "tide.outbox_create('orders')")
        creating = pool.submit(call, second, "tide.outbox_create('orders')")
        wait_until(lambda: db.execute("select from pg_locks where not granted").rowcount)
        db.execute("commit")
        with refused("23505"):
            creating.result()


def test_creating_can_be_rolled_back(db):
    before = relations(db)
    db.execute("begin")
    call(db, "tide.outbox_create('orders')")
    publish(db)
    db.execute("rollback")
    assert relations(db) == before


@pytest.mark.parametrize(
    "statement",
    [
        "tide.outbox_publish('nowhere', '1')",
        "tide.outbox_publish_many('nowhere', '{1}')",
        "tide.outbox_enable('nowhere')",
        "tide.outbox_disable('nowhere')",
        "tide.outbox_status('nowhere')",
        "tide.outbox_drop('nowhere')",
        "tide.outbox_extend('nowhere')",
        "tide.relay_set_outbox('p', 'nowhere', '{\"sink_type\": \"memory\"}')",
    ],
)
def test_an_outbox_that_does_not_exist_is_named_with_what_to_do(db, statement):
    with refused("42704", 'outbox "nowhere" does not exist', hint="tide.outbox_create('nowhere')"):
        call(db, statement)


def test_no_name_is_no_outbox(db):
    with refused("42704", "does not exist"):
        call(db, "tide.outbox_publish(null, '1')")


def test_a_disabled_outbox_refuses_messages_and_delivers_those_it_has(database, db):
    make_pipeline(database)
    kept = publish(db)
    call(db, "tide.outbox_disable('orders')")
    for statement in ("tide.outbox_publish('orders', '1')", "tide.outbox_publish_many('orders', '{1}')"):
        with refused("55000", 'outbox "orders" is disabled', hint="tide.outbox_enable('orders')"):
            call(db, statement)
    with reader_of(database) as reader:
        assert Follower(reader).to_end() == [kept]
    call(db, "tide.outbox_disable('orders')")
    call(db, "tide.outbox_enable('orders')")
    assert publish(db) > kept


def test_drop_leaves_nothing(db):
    call(db, "tide.outbox_create('first')")  # and the table of its hundred, which stays
    before = relations(db)
    call(db, "tide.outbox_create('orders')")
    publish_many(db, 10)
    call(db, "tide.outbox_drop('orders')")
    assert relations(db) == before
    assert db.execute("select name from tide.outbox").fetchall() == [("first",)]


def test_drop_if_exists_of_nothing_does_nothing(db):
    call(db, "tide.outbox_drop('nowhere', if_exists => true)")


def test_drop_is_refused_while_pipelines_read_the_outbox(database, db):
    make_pipeline(database, "first")
    make_pipeline(database, "second")
    with refused("2BP01", 'outbox "orders" is read by pipelines: first, second', hint="tide.relay_delete"):
        call(db, "tide.outbox_drop('orders')")
    call(db, "tide.relay_delete('first')")
    call(db, "tide.relay_delete('second')")
    call(db, "tide.outbox_drop('orders', true)")


def test_drop_gives_up_while_a_publisher_is_open(database, db):
    call(db, "tide.outbox_create('orders')")
    db.execute("alter function tide.outbox_drop set lock_timeout = '50ms'")
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        with refused("55P03"):
            call(db, "tide.outbox_drop('orders')")
        publisher.execute("commit")
    call(db, "tide.outbox_drop('orders')")


def test_an_outbox_of_the_same_name_starts_anew(db):
    call(db, "tide.outbox_create('orders')")
    publish_many(db, 10)
    call(db, "tide.outbox_drop('orders')")
    call(db, "tide.outbox_create('orders')")
    assert publish(db) == 1
    assert db.execute("select count(*) from tide.message").fetchone()[0] == 1


def test_status_of_an_outbox_that_nobody_reads(db):
    call(db, "tide.outbox_create('orders', 12, 1000)")
    found = status(db)
    assert found.pop("total_bytes") > 0
    assert found == {
        "outbox": "orders",
        "enabled": True,
        "retention_hours": 12,
        "max_payload_bytes": 1000,
        "last_id": 0,
        "horizon": 0,
        "open_publishers": 0,
        "partitions": 3,
        "consumer_groups": 0,
        "slowest_group": None,
        "lag": None,
    }


def test_status_shows_the_slowest_group_and_the_open_publishers(database, db):
    make_pipeline(database, "fast")
    make_pipeline(database, "slow")
    publish_many(db, 10)
    db.execute("update tide.consumer_group set offset_id = 7 where name = 'fast'")
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        found = status(db)
    assert (found["last_id"], found["horizon"], found["open_publishers"]) == (11, 10, 1)
    assert (found["consumer_groups"], found["slowest_group"], found["lag"]) == (2, "slow", 11)
