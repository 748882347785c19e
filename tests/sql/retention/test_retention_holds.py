"""What is not settled is held: indefinitely while a group advances, for a bounded time while none does."""

import pytest

from tests.sql.retention.retention import (
    SIZE,
    age,
    fill,
    losses,
    make_line,
    parts,
    retain,
    settle,
    stand_for,
)
from tests.sql.support import make_outbox


@pytest.fixture
def db(database):
    """An outbox of small partitions, no retention, and a pipeline that has settled nothing."""
    with database.connect() as connection:
        make_outbox(connection, partition_size=SIZE, retention_hours=0)
        make_line(connection)
        yield connection


def test_an_enabled_pipeline_holds_for_ever(db):
    fill(db, 1)
    retain(db)
    age(db, "0", 100_000)
    assert retain(db)["truncated"] == 0
    [hold] = holds(db)
    assert (hold["state"], hold["messages"], hold["until"], hold["ending"]) == ("active", 999, None, False)


def test_a_disabled_pipeline_holds_for_max_retention_hours_from_its_disabling(db):
    fill(db, 1)
    age(db, "0", 100_000)
    db.execute("select tide.relay_disable('p')")
    retain(db)
    stand_for(db, "p", 167.9)
    last = retain(db)
    assert (last["truncated"], last["lost"]) == (0, 0)
    assert "p (disabled) holds 999 messages, the oldest 1, for 0 hours more" in last["warning"]
    stand_for(db, "p", 168.1)
    gone = retain(db)
    assert (gone["truncated"], gone["lost"]) == (1, 999)
    assert losses(db) == [("orders", "p", "p", "disabled", 999, 1, 999)]


def test_disabling_does_not_let_go_at_once_of_what_is_old_already(db):
    fill(db, 1)
    age(db, "0", 100_000)
    db.execute("select tide.relay_disable('p')")
    assert [retain(db)["truncated"] for _ in range(2)] == [0, 0]


def test_each_message_is_held_for_as_long(db):
    db.execute("select tide.relay_disable('p')")
    fill(db, 2)
    retain(db)
    stand_for(db, "p", 1000)
    age(db, "0", 169)
    age(db, "1000", 167)
    assert retain(db)["lost"] == 999
    assert parts(db)["1000"] == 1000


def test_enabling_ends_the_clock(db):
    fill(db, 1)
    age(db, "0", 1000)
    db.execute("select tide.relay_disable('p')")
    retain(db)
    stand_for(db, "p", 1000)
    db.execute("select tide.relay_enable('p')")
    db.execute("select tide.relay_disable('p')")
    assert retain(db)["truncated"] == 0, "it worked a moment ago, though no run of retention saw it"
    stand_for(db, "p", 1000)
    db.execute("select tide.relay_enable('p')")
    retain(db)
    assert db.execute("select count(*) from tide.hold").fetchone() == (0,)


def test_a_longer_retention_counts_instead_of_max_retention_hours(db):
    db.execute("select tide.outbox_set_retention('orders', 200)")
    db.execute("select tide.relay_disable('p')")
    fill(db, 1)
    retain(db)
    age(db, "0", 199)
    stand_for(db, "p", 199)
    assert retain(db)["truncated"] == 0
    age(db, "0", 201)
    stand_for(db, "p", 201)
    assert retain(db)["lost"] == 999


def test_a_disabled_pipeline_holds_for_ever_if_there_is_no_limit(db):
    db.execute("select tide.setting_set('max_retention_hours', '0')")
    fill(db, 1)
    db.execute("select tide.relay_disable('p')")
    retain(db)
    age(db, "0", 100_000)
    stand_for(db, "p", 100_000)
    assert retain(db)["truncated"] == 0
    [hold] = holds(db)
    assert (hold["until"], hold["ending"]) == (None, False)


def test_an_invalid_pipeline_stands_still_too(db):
    fill(db, 1)
    age(db, "0", 169)
    db.execute("update tide.pipeline set invalid_reason = 'wrong'")
    assert retain(db)["truncated"] == 0
    stand_for(db, "p", 169)
    assert retain(db)["lost"] == 999
    assert [reason for _, _, _, reason, *_ in losses(db)] == ["invalid"]


def test_a_polled_group_holds_while_a_consumer_lives(db):
    db.execute("select tide.relay_delete('p'); select tide.create_consumer_group('g', 'orders')")
    fill(db, 1)
    age(db, "0", 1000)
    db.execute("select tide.poll_outbox('g', 'w', batch_size => 1)")
    retain(db)
    [hold] = holds(db)
    assert (hold["consumer_group"], hold["pipeline"], hold["state"]) == ("g", None, "active")
    db.execute("update tide.consumer set seen_at = clock_timestamp() - interval '25 hours'")
    db.execute("select tide.consumers_reap()")
    assert retain(db)["truncated"] == 0
    [hold] = holds(db)
    assert (hold["state"], hold["ending"]) == ("unpolled", False)
    db.execute("update tide.hold set since = clock_timestamp() - interval '169 hours'")
    assert retain(db)["lost"] == 999
    assert losses(db) == [("orders", "g", None, "unpolled", 999, 1, 999)]


def test_a_replay_of_a_disabled_pipeline_holds_no_longer_than_the_pipeline(db):
    fill(db, 1)
    settle(db)
    age(db, "0", 169)
    db.execute("select tide.relay_replay('p', 500); select tide.relay_disable('p')")
    assert retain(db)["truncated"] == 0
    stand_for(db, "p", 169)
    assert retain(db)["lost"] == 500


def test_only_what_was_not_settled_counts_as_lost(db):
    make_line(db, "q")
    fill(db, 1)
    settle(db, "p", 700)
    settle(db, "q")
    age(db, "0", 169)
    db.execute("select tide.relay_disable('p')")
    retain(db)
    stand_for(db, "p", 169)
    assert retain(db)["lost"] == 299
    assert losses(db) == [("orders", "p", "p", "disabled", 299, 701, 999)]


def test_without_force_retention_age_alone_counts_and_the_loss_is_recorded(db):
    db.execute("select tide.setting_set('outbox_force_retention', 'false')")
    db.execute("select tide.outbox_set_retention('orders', 10)")
    fill(db, 2)
    age(db, "0", 9)
    assert retain(db)["truncated"] == 0
    [hold] = holds(db)
    assert hold["ending"] and 0 < hold["seconds_left"] <= 3600
    age(db, "0", 11)
    assert retain(db)["lost"] == 999
    assert losses(db) == [("orders", "p", "p", "not forced", 999, 1, 999)]
    assert parts(db)["1000"] == 1000


def test_the_warning_begins_when_four_fifths_of_the_time_are_over(db):
    db.execute("select tide.relay_disable('p')")
    fill(db, 1)
    retain(db)
    age(db, "0", 134)
    stand_for(db, "p", 134)
    assert retain(db)["warning"] is None
    stand_for(db, "p", 135)
    age(db, "0", 135)
    assert "for 33 hours more" in retain(db)["warning"]
    [hold] = holds(db)
    assert hold["ending"] and hold["seconds_left"] == pytest.approx(33 * 3600, abs=60)
    settle(db)
    assert retain(db)["warning"] is None, "it holds nothing any more"


def holds(connection):
    cursor = connection.execute("select * from tide.outbox_holds('orders')")
    return [dict(zip([column.name for column in cursor.description], row, strict=True)) for row in cursor]
