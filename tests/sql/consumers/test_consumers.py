"""Consumers of a group poll, lease and commit: what each call does, one after another."""

import pytest

from tests.sql.consumers.consumers import commit, consumer_group, held_by, lag, let_run_out, offset, one, poll, ranges
from tests.sql.support import make_outbox, publish_many, refused


@pytest.fixture
def db(database):
    """An outbox with ten messages, 1 to 10, and a group that has seen none."""
    with database.connect() as connection:
        make_outbox(connection)
        publish_many(connection, 10)
        consumer_group(connection)
        yield connection


def test_a_poll_returns_the_messages_whole_and_in_order(db):
    db.execute("""select tide.outbox_publish('orders', '{"n": 11}', '{"type": "made"}', 'k')""")
    rows = db.execute("select id, key, payload, headers, created_at from tide.poll_outbox('g', 'a')").fetchall()
    assert [row[0] for row in rows] == list(range(1, 12))
    assert rows[0][1:4] == (None, 1, {})
    assert rows[10][1:4] == ("k", {"n": 11}, {"type": "made"})
    assert db.execute("select created_at from tide.message where id = 11").fetchone() == (rows[10][4],)


def test_consumers_share_the_work(db):
    assert poll(db, "a", 4) == [1, 2, 3, 4]
    assert poll(db, "b", 4) == [5, 6, 7, 8]
    assert poll(db, "a", 4) == [9, 10]
    assert poll(db, "b", 4) == []
    assert ranges(db) == [(0, 4, "a"), (4, 8, "b"), (8, 10, "a")]


def test_the_offset_is_the_settled_prefix(db):
    for consumer in "abc":
        poll(db, consumer, 3)
    assert commit(db, "b", 6) == 0
    assert commit(db, "c", 9) == 0
    assert ranges(db) == [(0, 3, "a"), (3, 9, "settled")]
    assert commit(db, "a", 3) == 9
    assert ranges(db) == []
    assert offset(db) == 9


def test_settled_neighbours_become_one_in_whatever_order_they_come(db):
    for consumer in "abcde":
        poll(db, consumer, 2)
    for consumer, last_id in [("b", 4), ("d", 8), ("c", 6), ("e", 10)]:
        assert commit(db, consumer, last_id) == 0
    assert ranges(db) == [(0, 2, "a"), (2, 10, "settled")]
    assert commit(db, "a", 2) == 10


def test_a_commit_within_a_range_settles_its_lower_part(db):
    poll(db, "a", 10)
    assert commit(db, "a", 4) == 4
    assert ranges(db) == [(4, 10, "a")]
    assert commit(db, "a", 10) == 10


def test_a_commit_never_moves_back(db):
    poll(db, "a", 10)
    assert commit(db, "a", 8) == 8
    for consumer, last in [("a", 3), ("a", 8), ("b", 8)]:
        with refused("55000", f"does not hold message {last}: it is settled already", hint="roll back"):
            commit(db, consumer, last)
    assert commit(db, "a", 0) == 8
    assert offset(db) == 8


def test_a_commit_of_what_is_settled_above_the_offset_is_refused(db):
    poll(db, "a", 5)
    poll(db, "b", 5)
    assert commit(db, "b", 10) == 0
    before = ranges(db)
    for consumer, last in [("b", 10), ("a", 7)]:
        with refused("55000", "it is settled already"):
            commit(db, consumer, last)
    assert ranges(db) == before


def test_work_in_the_transaction_of_its_commit_is_done_once_though_two_did_it(db, database):
    db.execute("create table work (message bigint)")
    assert poll(db, "slow", 4) == [1, 2, 3, 4]
    let_run_out(db)
    with database.connect() as quick:
        assert poll(quick, "quick", 4) == [1, 2, 3, 4]
        with quick.transaction():
            quick.execute("insert into work select generate_series(1, 4)")
            commit(quick, "quick", 4)
    with refused("55000", "it is settled already"), db.transaction():
        db.execute("insert into work select generate_series(1, 4)")
        commit(db, "slow", 4)
    assert one(db, "select count(*) from work") == 4


def test_a_commit_settles_its_own_poll_and_no_earlier_one(db):
    """A worker that died after its first poll and came back under its name would lose those messages."""
    poll(db, "a", 5)
    assert poll(db, "a", 5) == [6, 7, 8, 9, 10]
    assert commit(db, "a", 10) == 0
    let_run_out(db)
    assert poll(db, "a") == [1, 2, 3, 4, 5]
    assert commit(db, "a", 5) == 10


def test_what_is_not_committed_in_time_comes_again(db):
    assert poll(db, "a", 4) == [1, 2, 3, 4]
    let_run_out(db)
    assert poll(db, "b", 4) == [1, 2, 3, 4]
    with refused(
        "55000", 'consumer "a" of group "g" does not hold message 4', 'consumer "b" does', hint="extend_lease"
    ):
        commit(db, "a", 4)
    assert commit(db, "b", 4) == 4


def test_a_lease_that_ran_out_is_good_until_another_has_polled(db):
    poll(db, "a", 4)
    let_run_out(db)
    assert commit(db, "a", 4) == 4


def test_a_smaller_poll_takes_a_part_of_what_ran_out(db):
    poll(db, "a", 10)
    let_run_out(db)
    assert poll(db, "b", 3) == [1, 2, 3]
    assert ranges(db) == [(0, 3, "b"), (3, 10, None)]
    with refused("55000", 'consumer "b" does'):
        commit(db, "a", 2)
    assert commit(db, "b", 3) == 3
    assert poll(db, "b") == [4, 5, 6, 7, 8, 9, 10]


def test_whoever_lost_a_part_of_a_poll_cannot_commit_the_rest(db):
    """The work of the whole poll may be in the transaction that commits: with one message lost it must roll back."""
    poll(db, "a")
    commit(db, "a", 2)
    let_run_out(db)
    assert poll(db, "b", 3) == [3, 4, 5]
    for last in (4, 8, 10):
        with refused("55000", f"does not hold message {last}", hint="poll again"):
            commit(db, "a", last)
    commit(db, "b", 5)
    with refused("55000", "no consumer does"):
        commit(db, "a", 10)
    assert poll(db, "a") == [6, 7, 8, 9, 10]
    assert commit(db, "a", 10) == 10


def test_the_lowest_that_ran_out_comes_before_anything_new(db):
    poll(db, "a", 2)
    poll(db, "b", 2)
    poll(db, "c", 2)
    let_run_out(db, "b")
    assert poll(db, "d", 2) == [3, 4]
    assert poll(db, "d", 2) == [7, 8]


def test_what_nobody_polled_cannot_be_committed(db):
    poll(db, "a", 4)
    with refused("55000", 'consumer "a" of group "g" does not hold message 5', "no consumer does", hint="poll_outbox"):
        commit(db, "a", 5)
    assert offset(db) == 0


def test_nothing_new_is_an_empty_poll(db):
    poll(db, "a")
    commit(db, "a", 10)
    assert poll(db, "a") == []
    assert ranges(db) == []


def test_a_poll_that_is_rolled_back_leases_nothing(db):
    with db.transaction(force_rollback=True):
        assert poll(db, "a", 4) == [1, 2, 3, 4]
    assert ranges(db) == []
    assert poll(db, "b", 4) == [1, 2, 3, 4]


def test_a_commit_that_is_rolled_back_settles_nothing(db):
    poll(db, "a", 4)
    with db.transaction(force_rollback=True):
        assert commit(db, "a", 4) == 4
    assert offset(db) == 0
    assert held_by(db, "a") == (4, 1, 4)


def test_ids_that_were_rolled_back_are_passed(db):
    poll(db, "a")
    commit(db, "a", 10)
    with db.transaction(force_rollback=True):
        publish_many(db, 5)
    assert poll(db, "a") == []
    assert offset(db) == 15


def test_a_hole_at_the_end_of_a_range_is_settled_with_its_last_message(db):
    with db.transaction(force_rollback=True):
        publish_many(db, 5)
    assert poll(db, "a") == list(range(1, 11))
    assert ranges(db) == [(0, 15, "a")]
    assert commit(db, "a", 10) == 15


def test_a_batch_is_bounded_in_bytes_but_never_empty(db):
    poll(db, "a")
    commit(db, "a", 10)
    db.execute("update tide.outbox set max_payload_bytes = 30000000")
    for size in (20_000_000, 9_000_000, 9_000_000, 10):
        db.execute("select tide.outbox_publish('orders', to_jsonb(repeat('x', %s)))", [size])
    assert poll(db, "a") == [11]
    assert poll(db, "a") == [12, 13]
    assert poll(db, "a") == [14]
    let_run_out(db)
    assert poll(db, "b") == [11]


def test_groups_do_not_share_what_they_have_done(db):
    consumer_group(db, "other")
    poll(db, "a")
    commit(db, "a", 10)
    assert poll(db, "a", 3, group="other") == [1, 2, 3]
    assert (lag(db)["lag"], lag(db, "other")["lag"]) == (0, 10)


def test_what_retention_has_removed_is_not_waited_for(db):
    poll(db, "a", 4)
    poll(db, "b", 4)
    db.execute("truncate tide.message_1_0")
    let_run_out(db)
    assert publish_many(db, 2) == [11, 12]
    assert poll(db, "c") == [11, 12]
    assert offset(db) == 8
    assert commit(db, "c", 12) == 12


def test_one_block_polls_works_and_commits(db):
    consumer_group(db, "analytics")
    db.execute("create table worked_off (id bigint, payload jsonb)")
    block = """
        do $$
        declare
            message record;
            last_id bigint := 0;
        begin
            for message in select * from tide.poll_outbox('analytics', 'worker-1', batch_size => 6) loop
                insert into worked_off values (message.id, message.payload);
                last_id := message.id;
            end loop;
            if last_id > 0 then
                perform tide.commit_offset('analytics', 'worker-1', last_id);
            end if;
        end $$"""
    for _ in range(3):
        db.execute(block)
    assert [row[0] for row in db.execute("select id from worked_off order by id")] == list(range(1, 11))
    assert lag(db, "analytics")["lag"] == 0


def test_publishers_ring_no_bell_for_a_polled_group(db):
    assert db.execute("select count(*) from tide.bell").fetchone() == (0,)
