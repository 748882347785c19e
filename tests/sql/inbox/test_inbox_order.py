"""Order within aggregates, priorities, partitions of workers; and that all of it is cheap on large tables."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.inbox.inboxes import call, claim, end_lease, failed, fill, fill_many, names, processed
from tests.sql.support import refused
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        yield connection


@pytest.fixture
def ordered(db):
    call(db, "tide.enable_inbox_ordering('commands', aggregate_id_col => 'aggregate_id', seq_col => 'event_sequence')")
    return db


def add(db, event_id, aggregate, sequence):
    fill(db, event_id, aggregate_id=aggregate, event_sequence=sequence)


def test_only_the_next_of_each_aggregate_is_shown_and_claimed(ordered):
    for event_id, aggregate, sequence in [
        ("a2", "a", 2),
        ("a1", "a", 1),
        ("b7", "b", 7),
        ("b9", "b", 9),
        ("x", None, 1),
        ("y", None, 1),
    ]:
        add(ordered, event_id, aggregate, sequence)
    assert names(ordered, "next_commands") == ["a1", "b7", "x", "y"]
    assert sorted(claim(ordered)) == ["a1", "b7", "x", "y"]
    assert claim(ordered) == []
    processed(ordered, "a1")
    assert names(ordered, "next_commands") == ["a2", "b7", "x", "y"]
    assert claim(ordered) == ["a2"]


def test_messages_of_one_sequence_and_those_without_follow_in_the_order_of_arrival(ordered):
    for event_id, sequence in [("late", None), ("later", None), ("first", 1), ("second", 1)]:
        add(ordered, event_id, "a", sequence)
    got = []
    while batch := claim(ordered):
        got += batch
        processed(ordered, *batch)
    assert got == ["first", "second", "late", "later"]


def test_a_failed_message_holds_back_its_aggregate_and_a_dead_one_too(ordered):
    add(ordered, "a1", "a", 1)
    add(ordered, "a2", "a", 2)
    add(ordered, "b1", "b", 1)
    assert claim(ordered) == ["a1", "b1"]
    assert failed(ordered, "a1", retry_seconds=3600) == "retry"
    assert claim(ordered) == []
    failed(ordered, "a1")
    assert failed(ordered, "a1") == "dead"
    assert (claim(ordered), names(ordered, "next_commands")) == ([], ["b1"])
    assert processed(ordered, "a1") == 1
    assert claim(ordered) == ["a2"]


def test_one_that_comes_late_waits_for_the_one_that_is_worked_on(ordered):
    add(ordered, "a2", "a", 2)
    assert claim(ordered) == ["a2"]
    add(ordered, "a1", "a", 1)
    assert claim(ordered, worker="other") == []
    processed(ordered, "a2")
    assert claim(ordered, worker="other") == ["a1"]


def test_one_that_comes_late_waits_also_for_a_claim_that_is_not_committed(ordered, database):
    add(ordered, "a2", "a", 2)
    with database.connect() as worker:
        worker.execute("begin")
        assert claim(worker) == ["a2"]
        add(ordered, "a1", "a", 1)
        assert claim(ordered, worker="other") == []
        worker.execute("commit")
        assert claim(ordered, worker="other") == []
    end_lease(ordered, "a2")
    assert claim(ordered, worker="other") == ["a1"]


def test_nobody_overtakes_a_claim_that_takes_its_time(ordered, database):
    add(ordered, "a2", "a", 2)
    with database.connect() as worker, database.connect() as gate, ThreadPoolExecutor(1) as pool:
        # The worker stops while it claims.
        gate.execute(
            "create function public.gate() returns trigger language plpgsql as"
            " 'begin perform pg_advisory_xact_lock(7); return new; end'"
        )
        gate.execute(
            "create trigger a_gate before update of claimed_by on tide.commands"
            " for each row when (new.claimed_by = 'slow') execute function public.gate()"
        )
        gate.execute("select pg_advisory_lock(7)")
        slow = pool.submit(claim, worker, 100, "slow")
        waiting = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'advisory'"
        wait_until(lambda: call(gate, waiting[7:], worker.info.backend_pid) == 1)
        add(ordered, "a1", "a", 1)
        assert claim(ordered, worker="other") == []
        gate.execute("select pg_advisory_unlock(7)")
        assert slow.result(10) == ["a2"]


def test_concurrent_workers_never_have_two_of_an_aggregate_and_keep_the_order(ordered, database):
    fill_many(ordered, 120, aggregates=5)
    ordered.execute("create table public.log (n bigint generated always as identity, event_id text)")
    start = threading.Barrier(4)

    def work(name, own_transaction):
        with database.connect() as session:
            start.wait()
            while call(session, "count(*) from tide.commands where processed_at is null"):
                if not own_transaction:
                    session.execute("begin")
                got = claim(session, 3, name)
                for event_id in got:
                    session.execute("insert into public.log (event_id) values (%s)", [event_id])
                assert processed(session, *got, worker=name) == len(got)
                if not own_transaction:
                    session.execute("commit")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["w1", "w2", "w3", "w4"], [True, False, True, False]))
    log = [row[0] for row in ordered.execute("select event_id from public.log order by n")]
    assert sorted(log) == sorted(f"m{n}" for n in range(1, 121))
    for aggregate in range(5):
        of_it = [int(event_id[1:]) for event_id in log if int(event_id[1:]) % 5 == aggregate]
        assert of_it == sorted(of_it)


def test_an_inbox_with_an_order_is_claimed_in_read_committed_only(ordered):
    with refused("25001", "only in READ COMMITTED"), ordered.transaction():
        ordered.execute("set transaction isolation level repeatable read")
        claim(ordered)


def test_order_can_be_changed_and_taken_away(ordered):
    ordered.execute('alter table tide.commands add "my ""seq%s" numeric default 1')
    call(ordered, "tide.enable_inbox_ordering('commands', 'source', 'my \"seq%s')")
    fill(ordered, "a", "b", source="s")
    assert claim(ordered) == ["a"]
    with refused("42804", "does not count"):
        ordered.execute("select * from tide.inbox_ordering_gaps('commands')")
    call(ordered, "tide.disable_inbox_ordering('commands')")
    assert call(ordered, "to_regclass('tide.next_commands')") is None
    assert claim(ordered) == ["b"]
    with refused("42703", 'inbox "commands" has no column nothing'):
        call(ordered, "tide.enable_inbox_ordering('commands', 'nothing', 'event_sequence')")
    with refused("55000", "has no order"):
        ordered.execute("select * from tide.inbox_ordering_gaps('commands')")


def test_gaps_are_told(ordered):
    for aggregate, sequences in {"a": [1, 2, 4, 5, 8], "b": [3, 4], "c": [1, 1, 2]}.items():
        for sequence in sequences:
            add(ordered, f"{aggregate}{sequence}{call(ordered, 'random()')}", aggregate, sequence)
    gaps = "select * from tide.inbox_ordering_gaps('commands')"
    assert ordered.execute(gaps).fetchall() == [("a", 3, 4), ("a", 6, 8)]
    ordered.execute("update tide.commands set processed_at = now() where event_sequence < 5 and aggregate_id = 'a'")
    assert ordered.execute(gaps).fetchall() == [("a", 6, 8)]
    ordered.execute("update tide.commands set processed_at = now() where event_sequence = 5")
    assert ordered.execute(gaps).fetchall() == [("a", 6, 8)]


def test_a_priority_comes_before_the_order_of_arrival(db):
    db.execute("alter table tide.commands add priority int")
    for event_id, priority in [("low", 1), ("none", None), ("high", 9), ("high2", 9)]:
        fill(db, event_id, priority=priority)
    call(db, "tide.enable_inbox_priority('commands', 'priority')")
    assert claim(db, 3) == ["high", "high2", "low"]
    failed(db, "high")
    call(db, "tide.enable_inbox_priority('commands', 'priority', descending => false)")
    assert claim(db, 1) == ["high"]
    call(db, "tide.disable_inbox_priority('commands')")
    assert claim(db) == ["none"]


def test_priority_and_order_go_together(ordered):
    ordered.execute("alter table tide.commands add priority int")
    for event_id, aggregate, sequence, priority in [("a1", "a", 1, 1), ("a2", "a", 2, 9), ("b1", "b", 1, 5)]:
        fill(ordered, event_id, aggregate_id=aggregate, event_sequence=sequence, priority=priority)
    call(ordered, "tide.enable_inbox_priority('commands', 'priority')")
    assert claim(ordered, 1) == ["b1"]
    assert claim(ordered) == ["a1"]


def fnv1a(data: bytes) -> int:
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


def test_partitions_of_workers_follow_fnv_1a(db):
    # Published: the offset basis, "a", "foobar".
    assert [fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")] == [0xCBF29CE484222325, 0xAF63DC4C8601EC8C, 0x85944171F73967E8]
    texts = ["", "a", "foobar", "customer-123", "Grüße, 世界 \N{ROCKET}", "x" * 1000, "\x01\x7f"]
    for workers in (1, 2, 3, 4, 7, 1000, 2**31 - 1):
        for text in texts:
            mine = fnv1a(text.encode()) % workers
            assert call(db, "tide.inbox_is_my_partition(%s, %s, %s)", text, mine, workers)
            if workers > 1:
                assert not call(db, "tide.inbox_is_my_partition(%s, %s, %s)", text, (mine + 1) % workers, workers)
    assert call(db, "tide.inbox_is_my_partition(null, %s, 4)", fnv1a(b"") % 4)
    for wrong in ("'a', 4, 4", "'a', -1, 4", "'a', 0, 0", "'a', null, 4", "'a', 0, null"):
        with refused("22023", "there is no worker"):
            call(db, f"tide.inbox_is_my_partition({wrong})")


# Costs ---------------------------------------------------------------------------------------------------------------


def buffers(db, statement):
    """Pages that a statement touches, and its plan."""
    plan = db.execute("explain (analyze, buffers, format json, timing off) " + statement).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], json.dumps(plan)


@pytest.fixture
def large(db):
    """200,000 that wait, 50,000 that are dead, 50,000 that are done; statistics from when the table was empty."""
    db.execute("alter table tide.commands set (autovacuum_enabled = off)")
    db.execute("analyze tide.commands")
    db.execute("""
        insert into tide.commands (event_id, aggregate_id, event_sequence, retry_count, processed_at)
        select 'm' || n, 'a' || n % 7, n, case when n % 6 = 1 then 3 else 0 end, case when n % 6 = 2 then now() end
          from generate_series(1, 300000) n""")
    return db


def test_claims_of_a_large_inbox_touch_little(large):
    few, plan = buffers(large, "select * from tide.inbox_claim('commands', 'w', 10)")
    assert few < 1000, plan
    # Behind what others have claimed, and behind what waits for a retry.
    claim(large, 2000)
    assert buffers(large, "select * from tide.inbox_claim('commands', 'w', 10)")[0] < 6000


def test_heads_of_a_large_inbox_are_found_by_a_walk_along_the_index(large):
    large.execute("update tide.commands set retry_count = 0 where retry_count > 0")
    call(large, "tide.enable_inbox_ordering('commands')")
    for analysed in (False, True):
        if analysed:
            large.execute("vacuum analyze tide.commands")
        touched, plan = buffers(large, "select * from tide.next_commands")
        assert touched < 300, plan
        assert "Seq Scan" not in plan
        assert '"Sort"' not in plan
        assert buffers(large, "select * from tide.inbox_claim('commands', 'w', 1)")[0] < 1000
    # All that wait longest are of one aggregate: the others' heads are found all the same.
    large.execute("update tide.commands set aggregate_id = 'one' where inbox_seq <= 10000")
    large.execute("update tide.commands set claimed_by = null, available_at = null where claimed_by is not null")
    assert len(claim(large, 100)) == 8
    assert buffers(large, "select * from tide.inbox_claim('commands', 'w', 100)")[0] < 12000


def test_status_and_health_count_along_indexes(large):
    large.execute("vacuum analyze tide.commands")
    touched, plan = buffers(large, "select tide.inbox_health('commands')")
    assert touched < 3500, plan
    row = large.execute("select pending, claimed, dead, processed from tide.inbox_status('commands')").fetchone()
    assert row == (200_000, 0, 50_000, 50_000)
