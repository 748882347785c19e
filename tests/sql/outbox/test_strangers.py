"""What a role with CONNECT alone, or another client of a pool, can do to publishers and horizon: hold up nothing."""

import psycopg
import pytest

from relay.operations.locks import lock_key, slot_of
from relay.operations.status import read_status
from tests.sql.security.logins import logins
from tests.sql.support import horizon, make_outbox, make_pipeline, publish, publish_many, relay_session

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def watcher(database):
    with database.connect() as connection:
        make_outbox(connection)
        publish_many(connection, 10)
        yield connection


@pytest.fixture
def publisher(database):
    with database.connect(options="-c statement_timeout=10s") as connection:
        yield connection


@pytest.fixture
def stranger(database):
    """A role that may connect, and nothing else."""
    with logins(database) as make:
        _, url = make()
        with psycopg.connect(url, autocommit=True) as session:
            yield session


def lock_class(watcher):
    return watcher.execute("select tide.lock_class(outbox_id) from tide.outbox").fetchone()[0]


def marks(watcher):
    """The keys of all marks, and whether they count."""
    return watcher.execute("select key, publishes from tide.mark order by key").fetchall()


@pytest.mark.parametrize(
    "forged", ["on", "garbage", "{xid}", "{next} 5", "{next} 2000000000", "0 0", "9" * 400, "{next} -2147483638"]
)
def test_a_setting_that_was_left_over_never_counts(watcher, publisher, forged):
    """Also one that guesses the number of the next transaction: the mark is taken, and is true."""
    xid = int(publisher.execute("select pg_current_xact_id()::text").fetchone()[0])
    value = forged.format(xid=xid, next=xid + 1)
    publisher.execute("select set_config('tide.inflight_1', %s, false)", [value])
    for publish_one in (publish, lambda session: publish_many(session, 2)):
        publisher.execute("begin")
        publish_one(publisher)
        publish(publisher)
        top = publish(watcher)
        found, open_publishers = horizon(watcher)
        assert (found < top - 1, open_publishers > 0) == (True, True)
        publisher.execute("commit")
        assert horizon(watcher) == (top, 0)


def test_a_setting_that_outlives_its_savepoint_hides_nothing(watcher, publisher):
    """Put back by hand, after the lock that it stood for was released."""
    publisher.execute("begin; savepoint s")
    publish(publisher)
    left = publisher.execute("select current_setting('tide.inflight_1')").fetchone()[0]
    publisher.execute("rollback to savepoint s")
    publisher.execute("select set_config('tide.inflight_1', %s, false)", [left])
    publish(publisher)
    top = publish(watcher)
    assert horizon(watcher)[0] < top - 1
    publisher.execute("commit")


@pytest.mark.parametrize(
    "taken",
    [
        "select pg_advisory_lock_shared(%s, 3)",
        "begin; select pg_advisory_xact_lock_shared(%s, 3), pg_current_xact_id()",
        "select pg_advisory_lock(%s, 3)",
    ],
)
def test_the_lock_of_one_who_does_not_publish_holds_nothing_back_and_is_named(
    database, watcher, publisher, stranger, taken
):
    stranger.execute(taken % lock_class(watcher))
    assert horizon(watcher) == (10, 0)
    assert watcher.execute("select tide.outbox_oldest_publisher_seconds(1)").fetchone() == (0,)
    assert marks(watcher) == [(3, False)]
    publisher.execute("begin")
    publish(publisher)
    publish(watcher)
    assert horizon(watcher) == (10, 1)
    publisher.execute("commit")
    assert horizon(watcher) == (12, 0)


def test_a_prepared_publisher_counts_beside_a_stranger(watcher, publisher, stranger):
    stranger.execute("select pg_advisory_lock_shared(%s, 3)", [lock_class(watcher)])
    publisher.execute("begin; set local tide.two_phase = on")
    publish(publisher)
    publisher.execute("prepare transaction 'strange'")
    publish(watcher)
    assert horizon(watcher) == (3, 2), "one of a prepared transaction vouches for all"
    watcher.execute("commit prepared 'strange'")
    assert horizon(watcher) == (12, 0)


def test_no_publisher_waits_for_a_stranger(watcher, publisher, stranger):
    stranger.execute(f"select pg_advisory_lock({lock_class(watcher)}, n) from generate_series(0, 200) n")
    publisher.execute("begin")
    publish(publisher)
    publish_many(publisher, 2)
    [(key, publishes)] = [mark for mark in marks(watcher) if mark[1]]
    assert publishes and key > 200
    assert publish(watcher) == 14
    assert horizon(watcher) == (0, 1)
    publisher.execute("commit")
    assert horizon(watcher) == (14, 0)


def test_work_on_an_outbox_waits_for_no_stranger(watcher, publisher, stranger):
    """The locks that it once took: of each outbox, and of each name."""
    stranger.execute("select pg_advisory_lock(1952670720, n) from generate_series(1, 20) n")
    stranger.execute("select pg_advisory_lock(1952670720, hashtext('new'))")
    assert publisher.execute("select tide.outbox_create_if_not_exists('new')").fetchone() == (True,)
    assert publisher.execute("select tide.outbox_create_if_not_exists('new')").fetchone() == (False,)
    assert publisher.execute("select busy from tide.outbox_retain('orders')").fetchone() == (False,)
    publisher.execute("select tide.outbox_skip_ids('orders')")
    publisher.execute("select setval(ids, 3000000) from tide.outbox where name = 'orders'")
    assert publisher.execute("select tide.outbox_extend('orders') > 0").fetchone() == (True,)


def test_one_who_creates_waits_for_another_and_not_without_limit(database, watcher, publisher):
    watcher.execute("alter function tide.outbox_create set lock_timeout = '200ms'")
    with database.connect(autocommit=False) as other:
        other.execute("select tide.outbox_create('new')")
        for call in ("outbox_create('new')", "outbox_create_if_not_exists('new')"):
            with pytest.raises(psycopg.errors.LockNotAvailable, match='"new" was not created') as found:
                publisher.execute(f"select tide.{call}")
            assert f"pid {other.info.backend_pid} of role tide_owner" in str(found.value.diag.message_detail)
        other.commit()
    assert publisher.execute("select tide.outbox_create_if_not_exists('new')").fetchone() == (False,)


def test_the_stranger_that_holds_the_lock_of_a_pipeline_is_named(database, watcher, stranger):
    make_pipeline(database)
    stranger.execute("select pg_advisory_lock_shared(%s::bigint)", [lock_key(slot_of("p", ""))])
    with relay_session(database.url) as reader:
        [status] = read_status(reader)
        assert status.state == "unowned"
        assert f"session pid {stranger.info.backend_pid} of user {stranger.info.user}" in status.why
        assert f"pg_terminate_backend({stranger.info.backend_pid})" in status.why
        stranger.execute("select pg_advisory_unlock_all()")
        assert "pid" not in read_status(reader)[0].why
