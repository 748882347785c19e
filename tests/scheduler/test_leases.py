"""A server that crashed and forgot that a drain began does not let a second one publish beside it."""

import threading
from contextlib import contextmanager

import pytest

from relay.backends.memory import sink
from relay.drains.lease import begin
from relay.models import Drain
from relay.settings import Settings
from scheduler.leases import remember
from scheduler.session import Session
from tests.waiting import wait_until
from workers.drain import run

pytestmark = pytest.mark.each_postgres

LEASE_MS = 30_000
STORE = "leases"
ROW = "select number, lease_until is not null, outcome from tide.drain where pipeline = 'p'"


@pytest.fixture
def server(own_postgres, pg):
    """Writes the log of transactions when one waits for it, and not by itself."""
    return own_postgres(pg.version, {"wal_writer_delay": "10s"})


@pytest.fixture
def database(server):
    made = server.create_database()
    yield made
    server.drop_database(made)


@pytest.fixture
def store(bench):
    bench.publish_to(sink_type="memory", name=STORE, batch_size=10, visibility_timeout_ms=LEASE_MS, timeout_ms=20_000)
    yield sink.store(STORE)
    sink.forget(STORE)


def crash(server):
    server.kill()
    server.start()


def row(database):
    with database.connect() as connection:
        return connection.execute(ROW).fetchone()


def begin_again(database, number):
    """Whether a drain of this number may begin now."""
    with database.connect() as connection:
        return begin(connection, Drain("p", 0, number, LEASE_MS)) is not None


@contextmanager
def publishing(bench, number):
    """A drain of this number is in its publish while the body runs."""
    arrived, may_publish = threading.Event(), threading.Event()
    publish = sink.MemorySink.publish

    def noted(self, records):
        arrived.set()
        may_publish.wait(20)
        return publish(self, records)

    drain = threading.Thread(target=run, args=[bench.resources, Drain("p", 0, number, LEASE_MS)], daemon=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sink.MemorySink, "publish", noted)
        drain.start()
        assert arrived.wait(20)
        try:
            yield
        finally:
            may_publish.set()
            drain.join(20)
    assert not drain.is_alive()


def drained_once(bench, store):
    """The length of the lease is known to last from here on: the next begin does not wait for the disk."""
    ids = bench.publish(2)
    assert bench.drain(lease_ms=LEASE_MS) == "idle"
    assert [record.id for record in store.received] == ids
    bench.query("create table what_is_committed_now_lasts_and_all_before_it ()")
    return ids


def test_a_drain_whose_begin_is_forgotten_is_not_joined_by_another(server, database, bench, store):
    before = drained_once(bench, store)
    ids = bench.publish(3)
    with Session(Settings(postgres_url=database.url)) as session:
        assert remember(session) == [], "nothing is forgotten"
    with publishing(bench, 2):
        crash(server)
        assert row(database) == (1, False, "idle"), "the begin of the second drain is forgotten"
        assert not begin_again(database, 3), "nothing begins before a scheduler was here"
        with Session(Settings(postgres_url=database.url)) as session:
            assert remember(session) == ["p"]
            assert remember(session) == [], "nor does a second scheduler find anything to do"
            assert not begin_again(database, 3), "it has the lease that it may have had"
    wait_until(lambda: row(database) == (2, False, "failed"), 20, "its worker has given it back")
    assert [record.id for record in store.received] == before + ids
    assert begin_again(database, 3)


def test_a_begin_is_remembered_where_its_lease_is_longer_than_any_before(server, database, bench, store):
    bench.publish(1)
    with publishing(bench, 1):
        crash(server)
        assert row(database) == (1, True, None)


def test_a_pipeline_that_has_nothing_to_deliver_waits_for_nothing(server, database, bench, store):
    drained_once(bench, store)
    crash(server)
    with database.connect() as connection:
        assert connection.execute("select tide.outbox_last_id(outbox_id) > 2 from tide.outbox").fetchone() == (True,)
    with Session(Settings(postgres_url=database.url)) as session:
        assert remember(session) == []
    assert begin_again(database, 2)


def test_what_is_to_be_redelivered_may_be_in_a_drain(server, database, bench, store):
    ids = drained_once(bench, store)
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    crash(server)
    with Session(Settings(postgres_url=database.url)) as session:
        assert remember(session) == ["p"]
    assert not begin_again(database, 2)


def test_a_restart_forgets_nothing(server, database, bench, store):
    drained_once(bench, store)
    bench.publish(1)
    server.restart()
    with Session(Settings(postgres_url=database.url)) as session:
        assert remember(session) == []
    assert begin_again(database, 2)


def test_a_known_lease_may_be_of_the_drain_before_and_is_made_longer(server, database, bench, store):
    drained_once(bench, store)
    bench.publish(1)
    bench.query("update tide.drain set lease_until = clock_timestamp() + interval '1 s'")
    crash(server)
    with Session(Settings(postgres_url=database.url)) as session, database.connect() as connection:
        assert remember(session) == ["p"]
        left = "select lease_until - clock_timestamp() > interval '15 s' from tide.drain"
        assert connection.execute(left).fetchone() == (True,)


def test_a_settle_is_remembered(server, database, bench, store):
    ids = drained_once(bench, store) + bench.publish(2)
    assert bench.drain(lease_ms=LEASE_MS) == "idle"
    crash(server)
    with database.connect() as connection:
        assert connection.execute("select offset_id from tide.consumer_group").fetchone() == (ids[-1],)
