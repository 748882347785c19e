"""A turn of maintenance: one step after another, each on its own, none in the way of the others."""

import random
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb
from structlog.testing import capture_logs

from relay.errors import NotConnected
from relay.settings import Settings
from scheduler.session import Session
from tests.sql.retention.retention import SIZE, age, fill, parts, settle, stand_for
from tests.sql.support import make_outbox, make_pipeline, publish, publish_many, relay_session, run
from tests.waiting import wait_until
from workers import maintenance
from workers.resources import Resources


@pytest.fixture
def db(database):
    make_pipeline(database, partition_size=SIZE, retention_hours=0)
    with database.connect() as connection:
        yield connection


@pytest.fixture
def relay(database):
    with relay_session(database.url) as session:
        yield session


def test_a_turn_goes_through_all_outboxes_until_nothing_is_left(db, relay):
    make_outbox(db, "others", partition_size=SIZE, retention_hours=0)
    fill(db, 18)
    fill(db, 1, "others")
    settle(db)
    counts = maintenance.run_once(relay)
    assert (counts.truncated, counts.lost, counts.failed) == (19, 0, 0)
    assert maintenance.run_once(relay).dropped == 19 - counts.dropped
    assert next(iter(parts(db))) == "18000"


def test_dead_letters_and_history_go_when_they_are_older_than_their_retention(db, relay):
    dead_letters(db, 3)
    assert maintenance.run_once(relay).dead_letters == 0, "0 means indefinitely"
    db.execute("select tide.setting_set('dead_letter_retention_hours', '24')")
    db.execute("select tide.setting_set('config_history_retention_hours', '24')")
    assert maintenance.run_once(relay).history == 0
    db.execute("update tide.dead_letter set failed_at = now() - interval '25 hours' where message_id < 3")
    db.execute("update tide.dead_letter set retry_requested_at = now() where message_id = 1")
    db.execute("update tide.pipeline_history set changed_at = now() - interval '25 hours'")
    counts = maintenance.run_once(relay)
    assert (counts.dead_letters, counts.history) == (1, 1)
    left = db.execute("select message_id from tide.dead_letter order by 1").fetchall()
    assert left == [(1,), (3,)], "one is waiting to be sent again, one is young"


def test_more_rows_than_one_transaction_takes_are_removed_in_several(db, relay, monkeypatch):
    monkeypatch.setattr(maintenance, "MAX_ROWS", 10)
    dead_letters(db, 25)
    db.execute("select tide.setting_set('dead_letter_retention_hours', '1')")
    db.execute("update tide.dead_letter set failed_at = now() - interval '2 hours'")
    assert maintenance.run_once(relay).dead_letters == 25


def test_processed_rows_of_inboxes_go(db, relay):
    db.execute("select tide.inbox_create('letters', processed_retention_hours => 1)")
    db.execute("""
        insert into tide.letters (event_id, payload, processed_at)
        values ('old', '1', now() - interval '2 hours'), ('young', '1', now()), ('pending', '1', null)""")
    assert maintenance.run_once(relay).inbox_rows == 1
    assert db.execute("select event_id from tide.letters order by 1").fetchall() == [("pending",), ("young",)]


def test_dead_consumers_are_removed(db, relay):
    db.execute("select tide.create_consumer_group('g', 'orders')")
    db.execute("select tide.consumer_heartbeat('g', 'w')")
    assert maintenance.run_once(relay).consumers == 0
    db.execute("update tide.consumer set seen_at = now() - interval '25 hours'")
    assert maintenance.run_once(relay).consumers == 1


def test_what_is_about_to_go_and_what_has_gone_is_said_aloud(db, relay):
    fill(db, 1)
    db.execute("select tide.relay_disable('p')")
    maintenance.run_once(relay)
    for hours, level, event in (
        (160, "warning", "unsettled messages will be removed"),
        (169, "error", "unsettled messages removed: see tide.retention_loss"),
    ):
        age(db, "0", hours)
        stand_for(db, "p", hours)
        with capture_logs() as logs:
            maintenance.run_once(relay)
        [line] = [log for log in logs if log["event"] == event]
        assert (line["log_level"], line["outbox"]) == (level, "orders")
    assert line["messages"] == 999


def test_one_step_that_fails_keeps_no_other_from_being_taken(db, relay):
    make_outbox(db, "broken", partition_size=SIZE)
    publish(db, "broken")
    db.execute("drop table tide.message_2 cascade")
    fill(db, 1)
    settle(db)
    counts = maintenance.run_once(relay)
    assert (counts.truncated, counts.failed) == (1, 1)


def test_nothing_new_is_begun_when_the_time_is_over_or_the_worker_stops(db, relay):
    fill(db, 1)
    settle(db)
    assert maintenance.run_once(relay, seconds=-1).truncated == 0
    assert maintenance.run_once(relay, stopping=lambda: True).truncated == 0


def test_a_session_that_is_lost_ends_the_turn(database, db, relay):
    with database.admin() as admin:
        admin.execute("select pg_terminate_backend(%s)", [relay.info.backend_pid])
    with pytest.raises(NotConnected):
        maintenance.run_once(relay)


def test_a_worker_without_its_database_does_not_fall_over():
    resources = Resources(
        Settings(postgres_url="postgresql://127.0.0.1:1/none", connect_timeout_seconds=0.2), threads=1
    )
    try:
        with capture_logs() as logs:
            maintenance.run(resources)
        assert [log["event"] for log in logs] == ["maintenance abandoned until the next turn"]
    finally:
        resources.close()


# The turn ------------------------------------------------------------------------------------------------------------


def test_of_all_schedulers_that_ask_one_gets_the_turn(database, db):
    settings = Settings(postgres_url=database.url)
    with Session(settings) as one, Session(settings) as other:
        assert [one.take_turn(60), other.take_turn(60), one.take_turn(60)] == [True, False, False]
        wait_until(lambda: other.take_turn(0.05), what="the next turn")
        db.execute("update tide.chore set due_at = clock_timestamp() + interval '1 hour'")
        assert one.take_turn(60), "a turn that was put off for longer than the interval is not waited for"


def test_a_scheduler_knows_the_holds_that_will_end(database, db):
    fill(db, 1)
    with Session(Settings(postgres_url=database.url)) as session:
        assert session.holds(["orders"]) == []
        db.execute("select tide.relay_disable('p')")
        [hold] = session.holds(["orders"])
    assert (hold.outbox, hold.consumer_group, hold.ending) == ("orders", "p", False)
    assert hold.seconds_left == pytest.approx(timedelta(hours=168).total_seconds(), abs=60)


def dead_letters(connection, count):
    connection.execute(
        "insert into tide.dead_letter (pipeline, outbox, message_id, headers, payload, published_at, code, reason)"
        " select 'p', 'orders', n, '{}', %s, now(), 'refused', 'refused' from generate_series(1, %s) n",
        [Jsonb(1), count],
    )


def looked_at(relay) -> list[str]:
    """The outboxes that a turn would look at."""
    return [name for (name,) in run(relay, "maintenance_outboxes", outbox_ids=list(range(1, 10)))]


def test_an_outbox_that_stores_nothing_is_looked_at_again_only_when_it_has_moved(db, relay):
    make_outbox(db, "idle", partition_size=SIZE)
    assert looked_at(relay) == [], "they are new"
    fill(db, 1)
    maintenance.run_once(relay)
    assert looked_at(relay) == ["orders"], "it stores what is not settled"
    settle(db)
    while looked_at(relay):
        maintenance.run_once(relay)
    assert db.execute("select count(*) from tide.message").fetchone() == (0,)
    publish(db)
    assert looked_at(relay) == ["orders"]


def test_an_outbox_is_looked_at_while_a_publisher_is_open(database, db, relay):
    """It stores nothing that anyone sees, and will: the id was given before."""
    with database.connect(autocommit=False) as publisher:
        publish(publisher)
        maintenance.run_once(relay)
        assert looked_at(relay) == ["orders"]
        publisher.commit()
    maintenance.run_once(relay)
    assert looked_at(relay) == ["orders"]


def test_an_outbox_is_looked_at_again_when_its_oldest_message_is_old(db, relay):
    """Four fifths of the retention: from then on there are warnings."""
    make_old = "update tide.message set created_at = now() - %s * interval '1 hour' where id = 1"
    make_outbox(db, "kept", partition_size=SIZE, retention_hours=10)
    publish_many(db, 3, "kept")
    db.execute(make_old, [7.9])
    assert looked_at(relay) == ["kept"]
    maintenance.run_once(relay)
    assert looked_at(relay) == []
    publish(db, "kept")
    assert looked_at(relay) == [], "it is younger"
    db.execute("select tide.outbox_set_retention('kept', 9)")
    assert looked_at(relay) == ["kept"]
    db.execute("select tide.outbox_set_retention('kept', 10)")
    db.execute("update tide.outbox set oldest_at = oldest_at - interval '8 minutes' where name = 'kept'")
    assert looked_at(relay) == ["kept"]


@pytest.mark.parametrize("stop", ["select tide.relay_disable('k')", "update tide.pipeline set invalid_reason = 'why'",
                                  "update tide.consumer_group set polled = true where name = 'k'"])  # fmt: skip
def test_an_outbox_of_young_messages_is_looked_at_while_a_group_is_stopped(db, relay, stop):
    """What it holds is counted from when retention has seen that."""
    make_outbox(db, "kept", partition_size=SIZE, retention_hours=10)
    db.execute("select tide.relay_set_outbox('k', 'kept', '{\"sink_type\": \"memory\"}')")
    publish(db, "kept")
    maintenance.run_once(relay)
    assert looked_at(relay) == []
    db.execute(stop)
    assert looked_at(relay) == ["kept"]


def test_an_outbox_of_young_messages_with_a_partition_to_drop_is_looked_at(db, relay):
    make_outbox(db, "kept", partition_size=SIZE, retention_hours=10)
    publish_many(db, SIZE + 10, "kept")
    db.execute("truncate tide.message_2_0")
    with db.transaction():
        db.execute("lock table tide.message_2 in row exclusive mode")
        assert maintenance.run_once(relay).busy == 1
    assert looked_at(relay) == ["kept"]
    maintenance.run_once(relay)
    maintenance.run_once(relay)
    assert looked_at(relay) == []
    assert db.execute("select to_regclass('tide.message_2_0')").fetchone() == (None,)


def test_an_outbox_is_looked_at_while_a_group_is_held(db, relay):
    publish(db)
    db.execute("select tide.relay_disable('p')")
    maintenance.run_once(relay)
    assert looked_at(relay) == ["orders"]
    db.execute("select tide.outbox_set_retention('orders', 10), tide.relay_enable('p')")
    assert looked_at(relay) == ["orders"]
    maintenance.run_once(relay)
    assert looked_at(relay) == [], "and that is noted"


def test_inboxes_have_their_turn_where_outboxes_take_all_the_time(db, relay, monkeypatch):
    """Outboxes and inboxes come in one random order, and dead letters and history before them."""
    db.execute("select tide.inbox_create('letters')")
    publish(db)
    order: list[str] = []
    monkeypatch.setattr(random, "shuffle", lambda steps: steps.reverse())
    monkeypatch.setattr(maintenance._Turn, "outbox", lambda self, name: order.append(name))
    monkeypatch.setattr(maintenance._Turn, "inbox", lambda self, name: order.append(name))
    maintenance.run_once(relay)
    assert order == ["letters", "orders"]
