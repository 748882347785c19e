"""The scheduler's session on a real PostgreSQL: locks, epochs, who is alive."""

import threading
import time

import pytest

from relay.drains import fence, lease
from relay.drains.lease import DrainResult
from relay.errors import Fenced, MigrationError, NotConnected
from relay.models import Drain
from relay.operations.locks import lock_key, slot_of
from relay.process.stop import Stop
from relay.settings import Settings
from scheduler.session import Session
from tests.scheduler.owning import let_go, own, raised, spec
from tests.waiting import wait_until

NAMES = ["a", "b", "c"]


@pytest.fixture
def settings(database):
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
        for name in NAMES:
            connection.execute("select tide.relay_set_outbox(%s, 'orders', '{\"sink_type\": \"memory\"}')", [name])
    return Settings.load(postgres_url=database.url)


@pytest.fixture
def session(settings):
    with Session(settings) as session:
        yield session


@pytest.fixture
def other(settings):
    with Session(settings) as session:
        yield session


def begin(database, drain: Drain):
    with database.connect() as connection:
        return lease.begin(connection, drain)


def end(database, drain: Drain):
    with database.connect() as connection:
        fence.end(connection, drain, DrainResult("idle"))


def test_slots_and_their_lock_keys_are_hashes_that_will_never_change():
    assert (slot_of("orders", ""), slot_of("orders", "blue")) == (("", 228), ("blue", 228))
    assert lock_key(slot_of("orders", "")) == -8925576294236093069
    assert lock_key(slot_of("orders", "blue")) == 2470166054344024002


def test_a_pipeline_has_one_owner(session, other):
    assert own(session, "a", "b") == ["a", "b"]
    assert own(other, *NAMES) == ["c"]
    assert session.unowned(NAMES) == []
    let_go(session, "a")
    assert other.unowned(NAMES) == ["a"]
    assert own(other, "a", "b") == ["a"]


def test_what_another_one_owns_is_not_released(session, other):
    assert own(other, "a") == ["a"]
    session.release(["a"])
    assert session.unowned(["a"]) == []


def test_slots_are_tried_until_there_is_enough_in_them(session, other):
    slots = [slot_of(name, "") for name in NAMES]
    assert session.take_slots(slots, [5, 5, 5], 0) == set()
    assert session.take_slots(slots, [5, 5, 5], 6) == {*slots[:2]}
    assert other.take_slots(slots, [5, 5, 5], 1) == {slots[2]}, "what others hold does not count"
    session.release_slots(slots[:2])
    assert other.take_slots(slots[:2], [5, 5], 99) == {*slots[:2]}, "each lock was taken once"


def test_a_pipeline_that_was_changed_since_it_was_read_is_not_adopted(session, database):
    """It may lie in another slot now."""
    [row] = session.pipelines(["a"])
    with database.connect() as connection:
        connection.execute("select tide.relay_disable('a')")
    assert session.adopt([spec("a", row["revision"])]) == []
    assert raised(session, "a") == []


def test_only_the_owner_raises_epochs_and_none_comes_twice(session, other):
    own(session, "a")
    assert raised(other, "a") == []
    epochs = [raised(session, "a")[0].epoch for _ in range(3)]
    let_go(session, "a")
    own(other, "a")
    epochs.append(raised(other, "a")[0].epoch)
    assert epochs == sorted(set(epochs))


def test_no_epoch_is_raised_while_a_lease_runs(session, database):
    own(session, "a")
    [claimed] = raised(session, "a")
    drain = Drain("a", claimed.epoch, 1, 60_000)
    assert begin(database, drain)
    [held] = raised(session, "a")
    assert held.epoch is None
    assert 50 < held.lease_seconds <= 60
    end(database, drain)
    assert raised(session, "a")[0].epoch > claimed.epoch


def test_a_lease_that_ran_out_is_no_obstacle_and_its_drain_is_fenced(session, database):
    own(session, "a")
    [claimed] = raised(session, "a")
    drain = Drain("a", claimed.epoch, 1, 1)
    assert begin(database, drain)
    wait_until(lambda: raised(session, "a")[0].epoch, 5, "the lease has run out")
    with pytest.raises(Fenced):
        end(database, drain)


def test_no_drain_begins_while_another_has_the_lease(session, database):
    """A broker that failed may have taken a drain even so, and another one after it."""
    own(session, "a")
    [claimed] = raised(session, "a")
    first, second = Drain("a", claimed.epoch, 1, 60_000), Drain("a", claimed.epoch, 2, 60_000)
    assert begin(database, first)
    assert begin(database, second) is None
    assert begin(database, first) is None, "nor does it begin twice"
    end(database, first)
    assert begin(database, second)


def test_a_pipeline_made_again_has_no_owner_and_another_epoch(session, database):
    own(session, "a")
    [claimed] = raised(session, "a")
    with database.connect() as connection:
        connection.execute("select tide.relay_delete('a')")
        connection.execute("select tide.relay_set_outbox('a', 'orders', '{\"sink_type\": \"memory\"}')")
    assert raised(session, "a") == []
    assert begin(database, Drain("a", claimed.epoch, 1, 60_000)) is None
    let_go(session, "a")
    assert own(session, "a") == ["a"]
    assert raised(session, "a")[0].epoch > claimed.epoch


def test_who_is_behind(session, database):
    assert session.behind(NAMES) == set()
    with database.connect() as connection:
        connection.execute("select tide.outbox_publish('orders', '1')")
        connection.execute("update tide.consumer_group set offset_id = 1 where name = 'b'")
    assert session.behind(NAMES) == {"a", "c"}
    [row] = session.lag(["c"])
    assert (row.name, row.messages, row.publisher_seconds) == ("c", 1, 0)
    assert 0 <= row.seconds < 60


def test_a_scheduler_that_goes_is_not_counted(session, settings):
    assert session.schedulers_alive() == 1
    with Session(settings):
        assert session.schedulers_alive() == 2
    assert session.schedulers_alive() == 1


def test_a_dead_scheduler_is_forgotten_and_a_living_one_is_not(session, settings, other):
    dead = Session(settings)
    own(dead, "a")
    dead._connection.close()
    wait_until(lambda: session.evict(60) is not None and session.schedulers_alive() == 2, 10, "it is forgotten")
    assert own(session, "a") == ["a"]
    other.heartbeat()


def test_a_silent_scheduler_is_ended_and_its_pipelines_can_be_taken(session, settings):
    silent = Session(settings)
    own(silent, "a")
    since = time.monotonic()
    wait_until(lambda: time.monotonic() > since + 0.2)
    session.heartbeat()
    assert session.evict(0.1) == [silent.scheduler_id]
    wait_until(lambda: own(session, "a") == ["a"], 5, "its lock is free")
    with pytest.raises(NotConnected):
        silent.heartbeat()
    silent.close()


def test_waiting_ends_with_a_notification_or_a_stop(session, database):
    with Stop() as stop:
        assert not session.wait(stop, 0)
        with database.connect() as connection:
            connection.execute("select tide.relay_disable('a')")
        assert session.wait(stop, 10).reconfigured
        threading.Timer(0.05, stop.set).start()
        since = time.monotonic()
        assert not session.wait(stop, 30)
        assert time.monotonic() - since < 10


def test_notifications_that_come_during_a_statement_are_not_lost(session, database):
    with Stop() as stop:
        for _ in range(20):
            with database.connect() as connection:
                connection.execute("select tide.relay_enable('a')")
            session.heartbeat()  # its answer brings the notification along
            assert session.wait(stop, 5).reconfigured


def test_a_database_without_the_schema_is_refused_with_the_remedy(empty_database):
    with pytest.raises(MigrationError, match="relay migrate"):
        Session(Settings.load(postgres_url=empty_database.url))


def test_a_lost_session_says_so(settings, database):
    session = Session(settings)
    with database.admin() as admin:
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%scheduler'")
    with pytest.raises(NotConnected):
        session.heartbeat()
    session.close()
