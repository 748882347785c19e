"""Leases are extended, groups are set back, silent consumers are reaped, and everybody can see how far a group is."""

import pytest

from tests.sql.consumers.consumers import commit, consumer_group, held_by, lag, let_run_out, offset, one, poll, ranges
from tests.sql.support import make_outbox, publish, publish_many, refused

LEFT = "select extract(epoch from min(lease_until) - clock_timestamp()) from tide.consumer_lease where not settled"


@pytest.fixture
def db(database):
    """An outbox with ten messages, 1 to 10, and a group that has seen none."""
    with database.connect() as connection:
        make_outbox(connection)
        publish_many(connection, 10)
        consumer_group(connection)
        yield connection


def silent(session, consumer, interval):
    """Has a consumer been silent for so long."""
    session.execute(
        "update tide.consumer set seen_at = clock_timestamp() - %s::interval where name = %s", [interval, consumer]
    )


def test_a_lease_lasts_as_long_as_was_asked(db):
    poll(db, "a", seconds=300)
    assert 290 < one(db, LEFT) <= 300


def test_a_lease_is_extended_and_never_shortened(db):
    poll(db, "a", 4)
    poll(db, "a", 4, seconds=300)
    until = one(db, "select tide.extend_lease('g', 'a', extension_seconds => 60)")
    assert until == one(db, "select min(lease_until) from tide.consumer_lease")
    assert 50 < one(db, LEFT) <= 60
    assert one(db, "select extract(epoch from max(lease_until) - clock_timestamp()) from tide.consumer_lease") > 290


def test_only_ones_own_leases_are_extended(db):
    poll(db, "a", 4, seconds=10)
    poll(db, "b", 4, seconds=10)
    one(db, "select tide.extend_lease('g', 'b', 100)")
    assert one(db, LEFT) <= 10


def test_a_lease_that_ran_out_is_extended_while_nobody_has_taken_it(db):
    poll(db, "a", 4)
    let_run_out(db)
    one(db, "select tide.extend_lease('g', 'a')")
    assert poll(db, "b", 4) == [5, 6, 7, 8]


def test_a_lease_that_is_lost_cannot_be_extended(db):
    poll(db, "a", 4)
    let_run_out(db)
    poll(db, "b", 4)
    with refused("55000", 'consumer "a" of group "g" holds no messages', hint="Poll again"):
        one(db, "select tide.extend_lease('g', 'a')")


def test_seeking_back_delivers_again_and_takes_what_was_held(db):
    poll(db, "a", 4)
    commit(db, "a", 4)
    poll(db, "b", 4)
    one(db, "select tide.seek_offset('g', 'a', 0)")
    assert (offset(db), ranges(db)) == (0, [])
    with refused("55000", 'consumer "b" of group "g" does not hold message 8', hint="poll again"):
        commit(db, "b", 8)
    assert poll(db, "c", 3) == [1, 2, 3]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_seeking_with_an_old_snapshot_is_refused_for_it_would_leave_ranges_that_it_does_not_see(
    db, database, isolation
):
    poll(db, "a", 4)
    commit(db, "a", 4)
    with database.connect() as admin:
        admin.execute(f"begin isolation level {isolation}")
        admin.execute("select count(*) from tide.outbox")
        assert poll(db, "b", 4) == [5, 6, 7, 8]
        with refused("25000", "cannot be set", isolation.upper(), hint="read committed"):
            one(admin, "select tide.seek_offset('g', 'a', 0)")
    assert ranges(db) == [(4, 8, "b")]


def test_seeking_forward_leaves_out(db):
    one(db, "select tide.seek_offset('g', 'a', 10)")
    assert poll(db, "a") == []
    assert publish(db) == 11
    assert poll(db, "a") == [11]


def test_no_group_is_set_above_the_horizon(db, database):
    with database.connect() as slow:
        slow.execute("begin")
        publish(slow)
        publish(db)
        with refused("22023", "cannot be set to 11", hint="10 (the horizon)"):
            one(db, "select tide.seek_offset('g', 'a', 11)")
        one(db, "select tide.seek_offset('g', 'a', 10)")


def test_seeking_to_what_retention_has_removed_says_where_the_group_goes_on(db):
    notices: list[str] = []
    db.add_notice_handler(lambda diagnosis: notices.append(diagnosis.message_primary or ""))
    one(db, "select tide.seek_offset('g', 'a', 0)")
    assert notices == []
    db.execute("truncate tide.message_1_0")
    publish(db)
    one(db, "select tide.seek_offset('g', 'a', 0)")
    assert notices == ['consumer group "g" goes on with message 11: what was below is no longer kept']
    assert poll(db, "a") == [11]


def test_whatever_a_consumer_does_is_a_sign_of_life(db):
    for call in (
        "tide.poll_outbox('g', 'a')",
        "tide.commit_offset('g', 'a', 3)",
        "tide.extend_lease('g', 'a')",
        "tide.consumer_heartbeat('g', 'a')",
    ):
        silent(db, "a", "1 hour")
        db.execute(f"select {call}")
        assert one(db, "select clock_timestamp() - seen_at < '1 minute' from tide.consumer"), call


def test_a_heartbeat_introduces_a_consumer_and_extends_nothing(db):
    db.execute("select tide.consumer_heartbeat('g', 'a')")
    assert held_by(db, "a") == (0, None, None)
    poll(db, "a", 4)
    before = one(db, "select lease_until from tide.consumer_lease")
    db.execute("select tide.consumer_heartbeat('g', 'a')")
    assert one(db, "select lease_until from tide.consumer_lease") == before


def test_a_dead_consumer_is_reaped_and_what_it_holds_goes_to_the_next(db):
    poll(db, "a", 4, seconds=43200)
    poll(db, "b", 4)
    silent(db, "a", "25 hours")
    assert lag(db)["consumers"] == 1
    assert one(db, "select tide.consumers_reap()") == 1
    assert one(db, "select array_agg(name) from tide.consumer") == ["b"]
    assert poll(db, "b", 4) == [1, 2, 3, 4]


def test_a_reaped_consumer_that_comes_back_may_commit_what_nobody_took(db):
    poll(db, "a", 4)
    silent(db, "a", "25 hours")
    one(db, "select tide.consumers_reap()")
    assert held_by(db, "a") == (4, 1, 4)
    assert commit(db, "a", 4) == 4


@pytest.mark.parametrize(
    ("setting", "value"), [("consumer_cleanup_enabled", "false"), ("consumer_dead_threshold_hours", "0")]
)
def test_nobody_is_reaped_when_it_is_turned_off(db, setting, value):
    poll(db, "a", 4)
    silent(db, "a", "1000 hours")
    db.execute("select tide.setting_set(%s, %s)", [setting, value])
    assert one(db, "select tide.consumers_reap()") == 0
    assert one(db, "select count(*) from tide.consumer") == 1


def test_the_threshold_is_a_setting(db):
    poll(db, "a", 4)
    silent(db, "a", "100 minutes")
    db.execute("select tide.setting_set('consumer_dead_threshold_hours', '2')")
    assert one(db, "select tide.consumers_reap()") == 0
    db.execute("select tide.setting_set('consumer_dead_threshold_hours', '1')")
    assert one(db, "select tide.consumers_reap()") == 1


def test_reaping_waits_for_no_consumer_at_work(db, database):
    poll(db, "a", 4)
    silent(db, "a", "25 hours")
    with database.connect() as busy:
        busy.execute("begin")
        poll(busy, "b")
        db.execute("set lock_timeout = '1s'")
        assert one(db, "select tide.consumers_reap()") == 0
        busy.execute("rollback")
        busy.execute("begin")
        busy.execute("select tide.consumer_heartbeat('g', 'a')")
        assert one(db, "select tide.consumers_reap()") == 0
        busy.execute("commit")
    assert one(db, "select tide.consumers_reap()") == 0


def test_the_lag_is_what_is_committed_and_not_settled(db, database):
    with database.connect() as slow:
        slow.execute("begin")
        publish_many(slow, 5)
        publish(db)
        poll(db, "a", 4)
        poll(db, "b", 4)
        commit(db, "b", 8)
        found = lag(db)
        assert (found["consumer_group"], found["outbox"], found["offset_id"], found["horizon"]) == (
            "g",
            "orders",
            0,
            10,
        )
        assert (found["lag"], found["leased"], found["consumers"]) == (7, 4, 2)
        let_run_out(db)
        assert lag(db)["leased"] == 0
        slow.execute("rollback")
    assert lag(db)["lag"] == 7


def test_the_lag_in_seconds_is_the_age_of_the_oldest_that_is_not_settled(db):
    db.execute("update tide.message set created_at = clock_timestamp() - make_interval(mins => 60 - id::int)")
    poll(db, "a", 4)
    poll(db, "b", 4)
    commit(db, "b", 8)
    assert 59 * 60 <= lag(db)["lag_seconds"] < 59 * 60 + 50
    commit(db, "a", 2)
    assert 57 * 60 <= lag(db)["lag_seconds"] < 57 * 60 + 50
    commit(db, "a", 4)
    assert 51 * 60 <= lag(db)["lag_seconds"] < 51 * 60 + 50
    poll(db, "a")
    commit(db, "a", 10)
    assert (lag(db)["lag"], lag(db)["lag_seconds"]) == (0, 0)


def test_without_a_name_the_lag_is_that_of_every_polled_group(db):
    make_outbox(db, "other")
    consumer_group(db, "f", "other")
    db.execute("select tide.relay_set_outbox('p', 'orders', '{\"sink_type\": \"memory\"}')")
    rows = db.execute("select consumer_group, outbox, lag from tide.consumer_lag()").fetchall()
    assert rows == [("f", "other", 0), ("g", "orders", 10)]


def test_the_status_tells_who_holds_what(db):
    poll(db, "a", 4)
    poll(db, "b", 4, seconds=300)
    commit(db, "b", 6)
    silent(db, "a", "25 hours")
    rows = db.execute("select consumer, is_alive, held, first_id, last_id from tide.consumer_status('g')").fetchall()
    assert rows == [("a", False, 4, 1, 4), ("b", True, 2, 7, 8)]
    row = db.execute("select lease_until - seen_at from tide.consumer_status('g') where consumer = 'b'").fetchone()
    assert 290 < row[0].total_seconds() < 310
