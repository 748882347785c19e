"""Retention of an outbox: partitions that are settled and old go, whatever is open elsewhere, and nothing else does."""

import pytest

from tests.sql.retention.retention import (
    SIZE,
    age,
    fill,
    make_line,
    parts,
    retain,
    retain_all,
    settle,
)
from tests.sql.support import make_outbox, publish, publish_many, refused

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    """An outbox of small partitions, no retention, and a pipeline that has settled nothing."""
    with database.connect() as connection:
        make_outbox(connection, partition_size=SIZE, retention_hours=0)
        make_line(connection)
        yield connection


def test_a_settled_partition_is_emptied_and_dropped_the_next_time(db):
    fill(db, 2)
    settle(db)
    first = retain(db)
    assert (first["truncated"], first["dropped"], first["lost"], first["busy"]) == (2, 0, 0, False)
    assert list(parts(db)) == ["0", "1000", "2000", "rest"]
    assert parts(db)["0"] == parts(db)["1000"] == 0
    assert retain(db)["dropped"] == 2
    assert list(parts(db)) == ["2000", "rest"]
    assert retain(db)["dropped"] == 0


def test_the_partition_in_use_and_those_made_ahead_stay(db):
    fill(db, 1)
    settle(db)
    retain_all(db)
    assert parts(db) == {"1000": 0, "rest": 0}
    assert publish(db) == 1000


def test_nothing_goes_that_one_group_has_not_settled(db):
    make_line(db, "slow")
    fill(db, 3)
    settle(db, "p")
    settle(db, "slow", 1999)
    assert retain_all(db)["lost"] == 0
    assert parts(db) == {"2000": 1000, "3000": 0, "rest": 0}
    settle(db, "slow", 2998)
    retain_all(db)
    assert parts(db)["2000"] == 1000, "one message of it is not settled"
    settle(db, "slow", 2999)
    retain_all(db)
    assert list(parts(db)) == ["3000", "rest"]


def test_an_offset_at_the_last_row_is_enough_though_ids_above_it_were_rolled_back(db):
    db.execute("begin")
    publish_many(db, SIZE)
    db.execute("rollback")
    last = publish_many(db, 10)[-1]
    db.execute("select setval(ids, 1999) from tide.outbox; select tide.outbox_extend('orders')")
    settle(db, "p", last)
    retain_all(db)
    assert "1000" not in parts(db)


def test_nothing_goes_before_its_time(db):
    db.execute("select tide.outbox_set_retention('orders', 48)")
    fill(db, 2)
    settle(db)
    age(db, "0", 47.9)
    assert retain(db)["truncated"] == 0
    age(db, "0", 48.1)
    assert retain(db)["truncated"] == 1
    assert parts(db)["1000"] == 1000


def test_an_outbox_that_nobody_reads_keeps_messages_for_the_retention_only(db):
    db.execute("select tide.relay_delete('p')")
    fill(db, 1)
    retain_all(db)
    assert "0" not in parts(db)


def test_an_open_publisher_keeps_what_it_may_still_write_to(database, db):
    with database.connect() as publisher:
        publish_many(db, 10)
        publisher.execute("begin")
        publish(publisher)
        fill(db, 2)
        settle(db)
        assert retain(db)["truncated"] == 0
        publisher.execute("commit")
    settle(db)
    assert retain(db)["truncated"] == 2


def test_a_publisher_in_a_later_partition_only_delays_the_dropping(database, db):
    fill(db, 2)
    settle(db)
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        assert retain(db)["truncated"] == 2
        again = retain(db)
        assert (again["dropped"], again["busy"]) == (0, True)
        publisher.execute("commit")
    assert retain(db)["dropped"] == 2


def test_a_snapshot_that_is_held_stops_nothing_and_no_dead_row_is_left(database, db):
    fill(db, 2)
    settle(db)
    with database.connect() as reader:
        reader.execute("begin isolation level repeatable read")
        reader.execute("select count(*) from tide.pipeline")
        retain_all(db)
        assert list(parts(db)) == ["2000", "rest"]
        assert reader.execute("select count(*) from tide.message").fetchone() == (0,)
        reader.execute("commit")
    db.execute("select pg_stat_force_next_flush()") if db.info.server_version >= 150000 else None
    dead = db.execute("select sum(n_dead_tup), sum(n_tup_del) from pg_stat_user_tables where relname ~ '^message_1'")
    assert dead.fetchone() == (0, 0)


def test_a_replay_keeps_what_it_still_wants(db):
    fill(db, 3)
    settle(db)
    replay = db.execute("select tide.relay_replay('p', 1500)").fetchone()[0]
    retain_all(db)
    assert parts(db) == {"1000": 1000, "2000": 1000, "3000": 0, "rest": 0}
    db.execute("update tide.replay set next_id = 2000 where replay_id = %s", [replay])
    retain_all(db)
    assert list(parts(db)) == ["2000", "3000", "rest"]
    db.execute("select tide.relay_replay_cancel(%s)", [replay])
    retain_all(db)
    assert list(parts(db)) == ["3000", "rest"]


def test_the_default_partition_is_emptied_when_all_of_it_is_settled(database, db):
    publish_many(db, 3 * SIZE)
    settle(db, "p", 2500)
    retain_all(db)
    assert parts(db) == {"rest": 1001}
    db.execute("select tide.outbox_extend('orders')")
    settle(db)
    retain_all(db)
    assert parts(db) == {"5000": 0, "rest": 0}
    publish(db)
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        settle(db, "p", 10_000)
        assert retain(db)["busy"], "another session has the default partition"
        publisher.execute("commit")
    assert parts(db)["rest"] == 2
    retain(db)
    assert parts(db)["rest"] == 0


def test_a_run_is_bounded_and_says_that_there_is_more(db):
    fill(db, 4)
    settle(db)
    first = retain(db, max_partitions=3)
    assert (first["truncated"], first["more"]) == (3, True)


def test_two_at_once_are_harmless_the_second_does_nothing(database, db):
    fill(db, 1)
    settle(db)
    with database.connect() as other:
        other.execute("begin")
        assert retain(other)["truncated"] == 1
        second = retain(db)
        assert (second["truncated"], second["busy"]) == (0, True)
        other.execute("commit")
    assert retain(db)["dropped"] == 1


def test_it_refuses_to_work_in_an_old_snapshot(db):
    db.execute("begin isolation level repeatable read")
    with refused("25001", 'retention of outbox "orders"', hint="READ COMMITTED"):
        retain(db)
    db.execute("rollback")


def test_an_outbox_that_is_not_there_is_named(db):
    with refused("42704", 'outbox "nothing" does not exist'):
        db.execute("select tide.outbox_retain('nothing')")
    with refused("42704", 'outbox "nothing" does not exist'):
        db.execute("select * from tide.outbox_holds('nothing')")


# A quiet outbox ------------------------------------------------------------------------------------------------------


def test_a_quiet_outbox_is_cut_so_that_its_old_messages_can_go(db):
    db.execute("select tide.outbox_set_retention('orders', 24)")
    publish_many(db, 10)
    settle(db)
    age(db, "0", 25)
    young = publish_many(db, 5)
    settle(db)
    retain(db)
    assert parts(db) == {"0": 15, "16": 0, "1000": 0, "rest": 0}
    assert publish_many(db, 1000) == list(range(16, 1016))
    assert parts(db) == {"0": 15, "16": 984, "1000": 16, "rest": 0}
    retain_all(db)
    assert parts(db)["0"] == 15, f"{young} are not old"
    age(db, "0", 25)
    retain_all(db)
    assert parts(db) == {"16": 984, "1000": 16, "rest": 0}


def test_what_is_young_or_unsettled_is_no_reason_to_cut(db):
    publish_many(db, 10)
    settle(db)
    retain(db)
    assert len(parts(db)) == 3, "with no retention at all a partition is cut once an hour at most"
    age(db, "0", 2)
    settle(db, "p", 0)
    retain(db)
    assert len(parts(db)) == 3, "nothing could go"
    settle(db, "p", 1)
    retain(db)
    assert list(parts(db)) == ["0", "11", "1000", "rest"]


def test_an_open_publisher_is_not_cut_off(database, db):
    publish_many(db, 10)
    settle(db)
    age(db, "0", 2)
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        retain(db)
        assert len(parts(db)) == 3
        assert publish(publisher) == 12
        publisher.execute("commit")
    retain(db)
    assert list(parts(db)) == ["0", "13", "1000", "rest"]
