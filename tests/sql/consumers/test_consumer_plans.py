"""Polling reads along the index and opens no partition in vain, on a long outbox, whatever was analysed when."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.sql.consumers.consumers import Session, commit, consumer_group, lag, let_run_out, offset, one, poll, ranges
from tests.sql.support import make_outbox

pytestmark = pytest.mark.each_postgres

PARTITION = 10_000
MESSAGES = 100_000
MIDDLE = 54_950
PASSED = {"0", "10000", "20000", "30000", "40000"}

ROWS = """
select coalesce(sum(seq_scan), 0), coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)
  from pg_stat_xact_user_tables
 where schemaname = 'tide' and (relname like 'message\\_1%' or relname like 'consumer%')"""

ENTRIES = "select pg_stat_get_xact_tuples_returned('tide.consumer_lease_pkey'::regclass)"

OPENED = """
select distinct substring(c.relname from 'message_1_(.*)') from pg_locks l join pg_class c on c.oid = l.relation
 where l.pid = pg_backend_pid() and c.relkind = 'r' and c.relname like 'message\\_1\\_%'"""


@pytest.fixture
def db(database):
    """Many messages in ten partitions that were never analysed, and a group in the middle of them.

    Its own tables were, while they were small; and the session has polled and committed so often that PostgreSQL would
    use plans for any values, if it were let.
    """
    with database.connect() as session:
        make_outbox(session, partition_size=PARTITION)
        for last_id in range(PARTITION, MESSAGES + 1, PARTITION):
            session.execute("select setval(ids, %s) from tide.outbox", [last_id])
            session.execute("select tide.outbox_extend('orders')")
        session.execute(
            "insert into tide.message (outbox_id, id, size, headers, payload)"
            " select 1, i, 20, '{}', '0' from generate_series(1, %s) i",
            [MESSAGES],
        )
        consumer_group(session)
        session.execute("select tide.seek_offset('g', 'a', %s)", [MIDDLE - 10])
        for last_id in range(MIDDLE - 9, MIDDLE + 1):
            assert (poll(session, "a", 1), commit(session, "a", last_id)) == ([last_id], last_id)
        session.execute("analyze tide.consumer_group, tide.consumer, tide.consumer_lease")
        yield session


@dataclass
class Cost:
    """What a transaction did to messages and to the ranges of the group."""

    scans_of_whole_tables: int = 0
    rows: int = 0
    partitions: frozenset[str] = frozenset()


@contextmanager
def measured(session: Session) -> Iterator[Cost]:
    """A transaction, and its cost when it has ended."""
    cost = Cost()
    with session.transaction():
        # The counters go back to when the server was last told, which may be some transactions ago.
        before = counters(session)
        yield cost
        cost.scans_of_whole_tables, cost.rows = (
            now - then for now, then in zip(counters(session), before, strict=True)
        )
        cost.partitions = frozenset(name for (name,) in session.execute(OPENED))


def counters(session: Session) -> tuple[int, int]:
    row = session.execute(ROWS).fetchone()
    assert row
    return int(row[0]), int(row[1])


def test_a_poll_reads_its_batch_and_no_partition_below_the_offset(db):
    with measured(db) as cost:
        assert len(poll(db, "a", 40)) == 40
    assert cost.scans_of_whole_tables == 0
    assert cost.rows < 4 * 40
    assert cost.partitions.isdisjoint(PASSED)


def test_a_poll_across_a_border_stays_in_order(db):
    with measured(db) as cost:
        ids = poll(db, "a", 10_000)
    assert ids == list(range(MIDDLE + 1, MIDDLE + 10_001))
    assert cost.scans_of_whole_tables == 0
    assert cost.rows < 4 * 10_000


def test_what_ran_out_is_polled_from_its_own_partition(db):
    poll(db, "a", 40)
    let_run_out(db)
    with measured(db) as cost:
        assert len(poll(db, "b", 10)) == 10
    assert cost.partitions <= {"50000", "rest"}
    assert cost.scans_of_whole_tables == 0


def test_a_commit_opens_at_most_the_partition_of_its_range(db):
    poll(db, "a", 40)
    with measured(db) as cost:
        assert commit(db, "a", MIDDLE + 40) == MIDDLE + 40
    assert cost.partitions <= {"50000", "rest"}
    assert (cost.scans_of_whole_tables, cost.rows < 20) == (0, True)


def test_while_a_snapshot_is_held_the_thousandth_poll_costs_no_more_than_the_first(db, database):
    """Vacuum may not remove a deleted range then: what finds the next one must not walk over all of them."""
    with database.connect() as holder:
        holder.execute("begin isolation level repeatable read")
        holder.execute("select count(*) from tide.outbox")
        db.execute("""
            do $$ declare last_id bigint; begin
                for n in 1..1000 loop
                    select max(id) into last_id from tide.poll_outbox('g', 'a', 5);
                    perform tide.commit_offset('g', 'a', last_id);
                    commit;
                end loop;
            end $$""")
        assert offset(db) == MIDDLE + 5_000
        with measured(db) as cost:
            before = one(db, ENTRIES)
            poll(db, "a", 5)
            commit(db, "a", MIDDLE + 5_005)
            entries = one(db, ENTRIES) - before
    assert (cost.scans_of_whole_tables, cost.rows < 40) == (0, True)
    assert entries < 20
    assert ranges(db) == []


def test_the_lag_counts_along_the_index_from_the_offset_on(db):
    with measured(db) as cost:
        assert lag(db)["lag"] == MESSAGES - MIDDLE
    assert cost.scans_of_whole_tables == 0
    assert cost.partitions.isdisjoint(PASSED)
