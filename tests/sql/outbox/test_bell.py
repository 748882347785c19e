"""Publishers notify exactly when a consumer group sleeps."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.support import (
    Follower,
    begin,
    horizon,
    listen,
    make_outbox,
    make_pipeline,
    publish,
    reader_of,
    refused,
    relay_session,
)
from tests.waiting import wait_until


class Listener:
    """Hears what publishers notify."""

    def __init__(self, connection):
        self._connection = connection
        listen(connection)

    def heard_since(self, publisher):
        """Every payload up to now. Notifications arrive in the order of commits, so one of ours ends the wait."""
        publisher.execute("notify tide_outbox_notify, 'until here'")
        heard: list[str] = []
        for notification in self._connection.notifies(timeout=10):
            if notification.payload == "until here":
                return heard
            heard.append(notification.payload)
        raise AssertionError("even our own notification did not arrive")


@pytest.fixture
def listener(database):
    with database.connect() as connection:
        yield Listener(connection)


@pytest.fixture
def publisher(database):
    with database.connect() as connection:
        yield connection


def disarm(fenced):
    return fenced.execute("bell_disarm").rowcount


def arm(fenced):
    return fenced.execute("bell_arm").rowcount


def test_a_new_group_sleeps(database, listener, publisher):
    make_pipeline(database)
    publish(publisher)
    assert listener.heard_since(publisher) == ["orders"]


def test_nobody_notifies_while_the_group_is_awake(database, listener, publisher):
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        assert disarm(drain) == 1
        for _ in range(20):
            publish(publisher)
        publisher.execute("select tide.outbox_publish_many('orders', '{1,2,3}')")
        assert listener.heard_since(publisher) == []


def test_each_transaction_notifies_once_while_the_group_sleeps(database, listener, publisher):
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        disarm(drain)
        publish(publisher)
        assert arm(drain) == 1
        with publisher.transaction():
            publish(publisher)
            publish(publisher)
        publisher.execute("select tide.outbox_publish_many('orders', '{1,2,3}')")
        assert listener.heard_since(publisher) == ["orders", "orders"]


def test_arming_an_armed_bell_and_disarming_a_silent_one_write_nothing(database):
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        assert arm(drain) == 0
        assert disarm(drain) == 1
        assert disarm(drain) == 0


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_bell_is_seen_as_it_is_also_with_an_old_snapshot(database, listener, publisher, isolation):
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        disarm(drain)
        for armed in (False, True):
            publisher.execute(f"begin isolation level {isolation}")
            publisher.execute("select from tide.bell")
            if armed:
                arm(drain)
            publish(publisher)
            publisher.execute("commit")
            assert listener.heard_since(publisher) == ["orders"] * armed


def test_of_two_groups_one_that_arms_and_one_that_disarms_the_bell_rings_whoever_commits_first(
    database, listener, publisher
):
    make_pipeline(database, "first")
    make_pipeline(database, "second")
    with relay_session(database.url) as one, relay_session(database.url) as two, ThreadPoolExecutor(1) as pool:
        first, second = begin(one, "first"), begin(two, "second")
        disarm(first)
        one.execute("begin")
        arm(first)
        disarming = pool.submit(disarm, second)
        wait_until(lambda: publisher.execute("select from pg_locks where not granted").rowcount == 1)
        one.execute("commit")
        assert disarming.result() == 1
        publish(publisher)
        assert listener.heard_since(publisher) == ["orders"]


def test_a_bell_that_was_silenced_by_a_transaction_that_was_rolled_back_is_armed_again(database, listener, publisher):
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        session.execute("begin")
        disarm(drain)
        session.execute("rollback")
        assert publisher.execute("select armed from tide.bell").fetchone() == (True,)
        assert arm(drain) == 1
        publish(publisher)
        assert listener.heard_since(publisher) == ["orders"]


def test_a_publisher_that_ends_between_the_two_reads_of_the_last_look_is_not_slept_over(database, listener, publisher):
    """It had its mark before, took its id after the last id was read, and was gone before the marks were read."""
    make_pipeline(database)
    with reader_of(database) as reader, database.connect() as between, ThreadPoolExecutor(1) as pool:
        follower = Follower(reader)
        follower.step("disarm")
        publisher.execute("begin")
        publisher.execute("select tide.outbox_ask(outbox_id) from tide.outbox")
        between.execute("begin; alter view tide.mark set (security_barrier = false)")  # locks it
        look = pool.submit(follower.step, "arm")
        wait_until(lambda: between.execute("select from pg_locks where not granted").rowcount == 1)
        published = publish(publisher)
        publisher.execute("commit")
        between.execute("rollback")
        batch = look.result()
        assert [message.id for message in batch.messages] == [published] or batch.open_publishers
        assert listener.heard_since(publisher) == [], "it saw a silent bell"


def test_a_rolled_back_publish_notifies_nobody(database, listener, publisher):
    make_pipeline(database)
    publisher.execute("begin")
    publish(publisher)
    publisher.execute("rollback")
    assert listener.heard_since(publisher) == []


def test_groups_of_one_outbox_have_a_bell_each(database, listener, publisher):
    make_pipeline(database, "first")
    make_pipeline(database, "second")
    with relay_session(database.url) as session:
        first, second = begin(session, "first"), begin(session, "second")
        disarm(first)
        publish(publisher)
        assert listener.heard_since(publisher) == ["orders"], "the second group sleeps"
        disarm(second)
        publish(publisher)
        assert listener.heard_since(publisher) == [], "both are awake"
        arm(first)
        publish(publisher)
        assert listener.heard_since(publisher) == ["orders"], "the first group sleeps"


def test_outboxes_have_bells_of_their_own(database, listener, publisher):
    make_pipeline(database, "p", "orders")
    make_pipeline(database, "q", "events")
    with relay_session(database.url) as session:
        disarm(begin(session, "p"))
        with publisher.transaction():
            publish(publisher, "orders")
            publish(publisher, "events")
        assert listener.heard_since(publisher) == ["events"]


def test_an_outbox_that_nobody_reads_notifies_nobody(database, listener, publisher):
    make_outbox(publisher)
    publish(publisher)
    assert listener.heard_since(publisher) == []


def test_after_a_rolled_back_savepoint_the_bell_is_looked_at_again(database, listener, publisher):
    make_pipeline(database)
    publisher.execute("begin; savepoint s")
    publish(publisher)
    publisher.execute("rollback to savepoint s")
    publish(publisher)
    publisher.execute("commit")
    assert listener.heard_since(publisher) == ["orders"]


def test_a_publisher_that_came_before_the_bell_was_armed_is_seen_by_the_second_look(database, listener, publisher):
    make_pipeline(database)
    with reader_of(database) as reader:
        follower = Follower(reader)
        follower.step("disarm")
        publisher.execute("begin")
        published = publish(publisher)
        batch = follower.step("arm")
        assert (batch.messages, batch.open_publishers) == ([], 1), "the drain must come again, not sleep"
        publisher.execute("commit")
        assert listener.heard_since(publisher) == [], "it saw a silent bell"
        assert follower.to_end() == [published]


def test_a_disarm_waits_for_a_change_of_its_fence(database, publisher):
    """Otherwise a drain that was abandoned could silence the bell that the next one trusts in."""
    make_pipeline(database)
    with relay_session(database.url) as session:
        drain = begin(session)
        session.execute("set lock_timeout = '50ms'")
        publisher.execute("begin; update tide.drain set epoch = epoch + 1")
        with refused("55P03"):
            disarm(drain)
        publisher.execute("commit")
        assert disarm(drain) == 0


def test_a_prepared_transaction_may_publish_if_it_says_so_and_leaves_its_messages_to_the_timer(
    database, listener, publisher
):
    make_pipeline(database)
    publisher.execute("begin; set local tide.two_phase = on")
    published = publish(publisher)
    publisher.execute("prepare transaction 'paper'")
    assert horizon(publisher) == (published - 1, 1)
    publisher.execute("commit prepared 'paper'")
    assert horizon(publisher) == (published, 0)
    assert listener.heard_since(publisher) == []


@pytest.mark.usefixtures("listener")
def test_a_prepared_transaction_that_does_not_say_so_is_refused_by_postgres(database, publisher):
    make_pipeline(database)
    publisher.execute("begin")
    publish(publisher)
    with refused("0A000", "PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"):
        publisher.execute("prepare transaction 'paper'")


@pytest.mark.parametrize(
    "statement",
    ["select tide.outbox_publish('orders', '1')", "insert into tide_outbox.orders (payload) values ('1') returning id"],
)
def test_a_publisher_takes_its_mark_then_looks_at_the_bell_then_takes_its_id(database, publisher, statement):
    """Held up at the bell, it has its mark, and no id yet."""
    make_pipeline(database)
    publish(publisher)
    with database.connect() as held, ThreadPoolExecutor(1) as pool:
        publisher.execute("begin; alter sequence tide.message_1_bell maxvalue 3")  # locks it
        publishing = pool.submit(lambda: held.execute(statement).fetchone()[0])
        wait_until(lambda: publisher.execute("select from pg_locks where not granted").rowcount == 1)
        assert publisher.execute("select pg_sequence_last_value(ids) from tide.outbox").fetchone()[0] == 1
        assert publisher.execute("select key, publishes from tide.mark").fetchall() == [(1, True)]
        publisher.execute("rollback")
        assert publishing.result() == 2


@pytest.mark.parametrize("seen_at", [None, "yesterday"])
def test_with_no_scheduler_to_hear_them_publishers_do_not_notify(database, listener, publisher, seen_at):
    """A NOTIFY makes publishers wait for each other at commit: an outage of the relay must not slow applications."""
    make_pipeline(database)
    if seen_at is None:
        publisher.execute("delete from tide.scheduler")
    else:
        publisher.execute("update tide.scheduler set seen_at = 'yesterday'")
    publish(publisher)
    assert listener.heard_since(publisher) == []
