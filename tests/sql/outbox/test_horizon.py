"""The marks of open publishers, and the horizon that is made of them."""

import pytest

from tests.sql.support import Follower, horizon, make_outbox, make_pipeline, publish, publish_many, reader_of
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

WRAP = 2**31


@pytest.fixture
def watcher(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


@pytest.fixture
def publisher(database):
    with database.connect() as connection:
        yield connection


def marks(connection):
    """The advisory locks of all publishers."""
    return connection.execute(
        "select count(*) from pg_locks where locktype = 'advisory' and database ="
        " (select oid from pg_database where datname = current_database())"
    ).fetchone()[0]


def jump(connection, last_id, outbox="orders"):
    connection.execute("select setval(ids, %s) from tide.outbox where name = %s", [last_id, outbox])


def lock_class(connection, outbox="orders"):
    found = connection.execute("select tide.lock_class(outbox_id) from tide.outbox where name = %s", [outbox])
    return found.fetchone()[0]


def test_an_outbox_without_messages_has_horizon_zero(watcher):
    assert horizon(watcher) == (0, 0)


def test_an_outbox_that_does_not_exist_has_horizon_zero(watcher):
    assert watcher.execute("select horizon, open_publishers from tide.outbox_horizon(-1)").fetchone() == (0, 0)


def test_the_oldest_open_publisher_decides(database, watcher, publisher):
    publish_many(watcher, 10)
    with database.connect() as second:
        publisher.execute("begin")
        publish(publisher)
        publish_many(watcher, 5)
        second.execute("begin")
        publish(second)
        assert horizon(watcher) == (10, 2)
        publisher.execute("commit")
        assert horizon(watcher) == (16, 1)
        second.execute("rollback")
        assert horizon(watcher) == (17, 0)


def test_20000_publishes_of_one_transaction_take_one_lock(watcher, publisher):
    """Three times as many locks as the server has room for."""
    publisher.execute("begin")
    publisher.execute("select count(tide.outbox_publish('orders', '1')) from generate_series(1, 20000)")
    assert marks(watcher) == 1
    assert horizon(watcher) == (0, 1)
    publisher.execute("commit")
    assert (marks(watcher), horizon(watcher)) == (0, (20000, 0))


def test_two_outboxes_in_one_transaction_have_a_mark_each(watcher, publisher):
    make_outbox(watcher, "events")
    publish_many(watcher, 3, "events")
    publisher.execute("begin")
    for outbox in ("orders", "events", "orders", "events"):
        publish(publisher, outbox)
    assert marks(watcher) == 2
    assert (horizon(watcher, "orders"), horizon(watcher, "events")) == ((0, 1), (3, 1))


def test_mark_and_setting_revert_together_with_a_savepoint(watcher, publisher):
    publisher.execute("begin; savepoint s")
    publish(publisher)
    assert marks(watcher) == 1
    publisher.execute("rollback to savepoint s")
    assert (marks(watcher), horizon(watcher)) == (0, (1, 0))
    publish(publisher)
    assert (marks(watcher), horizon(watcher)) == (1, (1, 1))
    publisher.execute("savepoint s2")
    publish(publisher)
    publisher.execute("rollback to savepoint s2")
    assert (marks(watcher), horizon(watcher)) == (1, (1, 1))


def test_a_block_that_catches_an_error_reverts_its_mark(watcher, publisher):
    publisher.execute("begin")
    publisher.execute("""
        do $$ begin
            perform tide.outbox_publish('orders', '1');
            perform 1 / 0;
        exception when division_by_zero then null;
        end $$""")
    assert marks(watcher) == 0
    publish(publisher)
    assert (marks(watcher), horizon(watcher)) == (1, (1, 1))


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_marks_go_with_their_transaction(watcher, publisher, ending):
    publisher.execute("begin")
    publish(publisher)
    publisher.execute(ending)
    assert marks(watcher) == 0
    assert publisher.execute("select coalesce(current_setting('tide.inflight_1', true), '')").fetchone()[0] == ""


def test_marks_go_with_their_session(database, watcher):
    publisher = database.connect()
    publisher.execute("begin")
    publish(publisher)
    publisher.close()
    wait_until(lambda: marks(watcher) == 0)
    assert horizon(watcher) == (1, 0)


def test_a_mark_of_a_prepared_transaction_stays_when_the_server_is_killed(own_postgres, pg):
    server = own_postgres(pg.version)
    database = server.create_database()
    with database.connect() as publisher:
        make_outbox(publisher)
        publisher.execute("begin; set local tide.two_phase = on")
        publish(publisher)
        publisher.execute("prepare transaction 'paper'")
    server.kill()
    server.start()
    with database.connect() as watcher:
        publish(watcher)
        assert horizon(watcher) == (0, 1)
        watcher.execute("commit prepared 'paper'")
        assert horizon(watcher)[1] == 0
        server.drop_database(database)


@pytest.mark.parametrize("start", [WRAP - 3, WRAP, 3 * WRAP - 1, 3 * WRAP, 5 * WRAP + 7])
def test_marks_are_unwrapped_beyond_two_to_the_31(watcher, publisher, start):
    jump(watcher, start)
    publisher.execute("begin")
    publish(publisher)
    publish_many(watcher, 20)
    assert horizon(watcher) == (start, 1)
    jump(watcher, start + 1_500_000_000)
    assert horizon(watcher) == (start, 1), "a publisher that stays open over a billion ids"
    publisher.execute("commit")
    assert horizon(watcher) == (start + 1_500_000_000, 0)


def test_messages_are_read_in_order_across_the_wrap(database):
    make_pipeline(database)
    with reader_of(database, batch_size=3) as reader, database.connect() as slow, database.connect() as fast:
        jump(fast, WRAP - 5)
        slow.execute("begin")
        first = publish(slow)
        rest = publish_many(fast, 20)
        follower = Follower(reader)
        assert follower.to_end() == []
        slow.execute("commit")
        assert follower.to_end() == [first, *rest]


def test_the_applications_own_advisory_locks_have_no_effect(watcher, publisher):
    publish_many(watcher, 10)
    base, number = lock_class(watcher), 5
    publisher.execute("select pg_advisory_lock(%s, 1), pg_advisory_lock(0, 1)", [base + 1])
    publisher.execute("select pg_advisory_lock_shared(%s, %s)", [base - 1, number])
    publisher.execute("select pg_advisory_lock(7), pg_advisory_lock_shared(%s::bigint)", [(base << 32) + number])
    assert horizon(watcher) == (10, 0)


@pytest.mark.parametrize("key", [-1, -(2**31), 2**31 - 1, 0, 3, 11, 2**24])
def test_a_foreign_lock_in_an_outboxs_class_may_delay_but_never_hides_a_message(watcher, publisher, key):
    """The horizon never rises above the last id: messages that are still open lie there."""
    publish_many(watcher, 10)
    publisher.execute("select pg_advisory_lock(%s, %s)", [lock_class(watcher), key])
    assert horizon(watcher)[0] <= 10


def test_locks_in_another_database_of_the_server_do_not_matter(pg, watcher, publisher):
    publish_many(watcher, 10)
    other = pg.create_database()
    with other.connect() as elsewhere:
        elsewhere.execute("select pg_advisory_lock_shared(%s, 3)", [lock_class(watcher)])
        assert horizon(watcher) == (10, 0)
        make_outbox(elsewhere)
        elsewhere.execute("begin")
        publish(elsewhere)
        assert horizon(watcher) == (10, 0)
    pg.drop_database(other)


def test_status_tells_how_long_the_oldest_publisher_is_open(watcher, publisher):
    oldest = "select tide.outbox_oldest_publisher_seconds(outbox_id) from tide.outbox where name = 'orders'"
    assert watcher.execute(oldest).fetchone()[0] == 0
    publisher.execute("begin; set local tide.two_phase = on")
    publish(publisher)
    assert 0 < watcher.execute(oldest).fetchone()[0] < 60
    publisher.execute("prepare transaction 'paper'")
    assert 0 < watcher.execute(oldest).fetchone()[0] < 60
    publisher.execute("rollback prepared 'paper'")
    assert watcher.execute(oldest).fetchone()[0] == 0
