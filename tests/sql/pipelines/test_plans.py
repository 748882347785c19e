"""Reading is along the index, however old the statistics are, and opens no partition in vain."""

import json
import re

import pytest

from relay.sql import query
from tests.sql.consumers.consumers import consumer_group
from tests.sql.support import make_outbox, make_pipeline, publish_many, relay_session

pytestmark = pytest.mark.each_postgres

NEEDED_MANY = """
    select tide.outbox_publish_many(
        'orders', (select array_agg(to_jsonb(repeat('x', 50))) from generate_series(1, %s)))"""


@pytest.fixture
def stale(database):
    """An outbox of many partitions, one of which has grown a thousandfold since it was analysed; a relay's session."""
    make_pipeline(database, partition_size=20_000)
    with database.connect() as owner:
        for start in range(0, 100_000, 20_000):
            owner.execute("select setval(ids, %s) from tide.outbox", [start + 1])
            publish_many(owner, 20)
            owner.execute("select tide.outbox_extend('orders')")
        owner.execute("analyze tide.message")
        owner.execute("alter table tide.message_1_40000 set (autovacuum_enabled = off)")
        owner.execute("select setval(ids, 40030) from tide.outbox")
        owner.execute(NEEDED_MANY, [19_000])
        owner.execute("select setval(ids, 100030) from tide.outbox")
    with relay_session(database.url) as session:
        session.execute("select set_config('tide.horizon', '100030', false)")
        yield session


class Plan:
    """What EXPLAIN (ANALYZE) tells."""

    def __init__(self, session, statement, **parameters):
        text = "explain (analyze, format json, timing off) " + query(statement)
        found = session.execute(text, parameters).fetchone()[0][0]["Plan"]
        self.text = json.dumps(found)
        self.nodes = list(self._walk(found))

    def _walk(self, node):
        yield node
        for child in node.get("Plans", []):
            yield from self._walk(child)

    @property
    def kinds(self):
        return {node["Node Type"] for node in self.nodes}

    @property
    def partitions(self):
        """Those that were opened, by their first id."""
        return {
            node["Relation Name"].removeprefix("message_1_")
            for node in self.nodes
            if node.get("Relation Name", "").startswith("message_") and node["Actual Loops"]
        }

    @property
    def most_rows(self):
        """The most rows that any node of the messages gave."""
        return max(node["Actual Rows"] for node in self.nodes if "message_" in node.get("Relation Name", ""))


def read(session, after, max_messages=100):
    return Plan(
        session, "outbox_read", outbox_id=1, after=after, horizon=None, max_messages=max_messages, max_bytes=2_000_000
    )


def assert_along_the_index(plan):
    assert "Index Scan" in plan.kinds
    assert not plan.kinds & {"Sort", "Incremental Sort", "Seq Scan", "Bitmap Heap Scan", "Hash Join"}, plan.kinds


def test_a_batch_of_a_grown_partition_is_read_along_the_index_and_no_further(stale):
    plan = read(stale, after=45_000)
    assert_along_the_index(plan)
    assert plan.most_rows <= 101


def test_partitions_below_the_offset_and_above_the_horizon_are_not_opened(stale):
    assert not read(stale, after=45_000).partitions & {"0", "20000"}
    stale.execute("select set_config('tide.horizon', '50000', false)")
    plan = read(stale, after=45_000)
    assert_along_the_index(plan)
    assert plan.partitions <= {"40000", "rest"}
    assert "60000" not in plan.partitions


def test_a_batch_across_a_border_stays_in_order(stale):
    plan = read(stale, after=59_020)
    assert_along_the_index(plan)
    rows = stale.execute(
        query("outbox_read"),
        {"outbox_id": 1, "after": 59_020, "horizon": None, "max_messages": 100, "max_bytes": 2_000_000},
    ).fetchall()
    ids = [row[0] for row in rows]
    assert ids == sorted(ids)
    assert ids[0] < 60_000 < ids[-1]


LAG = {"outbox_id": 1, "offset_ids": [45_000, 65_000], "lowest_id": 45_000, "last_id": 70_000, "count_limit": 1}


def test_the_lag_of_an_outbox_reads_one_row_for_each_offset_along_the_index(stale, database):
    with database.connect() as owner:
        make_outbox(owner, "other")
    plan = Plan(stale, "outbox_lag", **LAG)
    assert_along_the_index(plan)
    assert plan.most_rows <= 1
    for partition in ("message_1_0", "message_1_20000", "message_1_80000", "message_1_100000"):
        assert f'"{partition}"' not in plan.text, "partitions outside the bounds are not even planned"
    assert "message_2" not in plan.text, "nor are those of other outboxes"


def test_the_lag_of_an_outbox_is_planned_for_its_number_when_it_was_prepared(stale):
    """With a generic plan, planning looks at every partition of every outbox."""
    for _ in range(12):
        stale.execute(query("outbox_lag"), LAG)
    found = stale.execute("select generic_plans from pg_prepared_statements where statement like '%tide.message%'")
    assert found.fetchall() == [(0,)]


@pytest.mark.parametrize(
    "call",
    [
        "select * from tide.outbox_holds('orders')",
        "select * from tide.relay_replay_preview('p', 1, 1)",
        "select * from tide.relay_replay_span('p')",
        "select tide.seek_offset('polled', 'c', 0)",
        "select * from tide.consumer_lag('polled')",
    ],
)
def test_a_function_that_reads_one_outbox_leaves_the_others_alone(database, call):
    """In a session without our settings, the sixth call of PL/pgSQL would make a generic plan, of every partition."""
    make_pipeline(database)
    with database.connect(autocommit=False) as owner:
        make_outbox(owner, "other")
        consumer_group(owner, "polled", "orders")
        publish_many(owner, 3)
        owner.execute("update tide.consumer_group set offset_id = 2 where name = 'p'")
        owner.commit()
        for _ in range(7):
            owner.execute(call, prepare=False)
        locked = owner.execute("""
            select c.relname from pg_locks l join pg_class c on c.oid = l.relation
             where l.pid = pg_backend_pid() and c.relname like 'message_2%'""")
        assert locked.fetchall() == []


def test_which_pipelines_lag_is_seen_without_messages(stale):
    assert "message_" not in Plan(stale, "pipelines_lag", names=["p"]).text


def test_the_timers_look_opens_no_messages(stale):
    plan = Plan(stale, "pipelines_behind", names=["p"])
    assert "message_" not in plan.text
    assert not re.search(r'"Sort', plan.text)


def test_the_plan_is_as_good_when_the_statement_was_prepared(stale):
    """psycopg prepares a statement that it has seen five times; a generic plan would open every partition."""
    parameters = {"outbox_id": 1, "after": 45_000, "horizon": None, "max_messages": 10, "max_bytes": 2_000_000}
    for _ in range(12):
        stale.execute(query("outbox_read"), parameters)
    plans = stale.execute("""
        select generic_plans, custom_plans from pg_prepared_statements
         where statement like '%tide.message%'""").fetchall()
    assert len(plans) == 1
    assert plans[0][0] == 0
    assert plans[0][1] > 5


def test_an_outbox_that_is_read_along_the_index_shares_nothing_with_its_neighbours(database):
    with database.connect() as owner:
        make_outbox(owner, "other")
        publish_many(owner, 100, "other")
    make_pipeline(database)
    with relay_session(database.url) as session:
        session.execute("select set_config('tide.horizon', '100', false)")
        plan = Plan(session, "outbox_read", outbox_id=2, after=0, horizon=None, max_messages=10, max_bytes=1000)
    assert all(node.get("Relation Name", "message_2").startswith("message_2") for node in plan.nodes)


class Move:
    """A batch that was moved into an inbox: which partitions of the outbox were locked, and how they were read."""

    READ = "select sum(seq_scan), sum(idx_tup_fetch) from pg_stat_xact_user_tables where relname like 'message_1%'"
    MOVE = """
        select m.last_id
          from tide.consumer_group g,
               tide.inbox_move('p', 0, 0, 30, g.group_id, 1, 'commands', %s, 100030, 100, 2000000) m"""
    LOCKED = """
        select c.relname from pg_locks l join pg_class c on c.oid = l.relation
         where l.pid = pg_backend_pid() and c.relname ~ '^message_1_[a-z0-9]+$' and c.relkind = 'r'"""

    def __init__(self, session, after):
        with session.transaction():
            # They count on from what the session has not told yet.
            [(sequential, fetched)] = session.execute(self.READ).fetchall()
            [(self.last_id,)] = session.execute(self.MOVE, [after]).fetchall()
            [(sequential_now, fetched_now)] = session.execute(self.READ).fetchall()
            self.sequential, self.fetched = sequential_now - sequential, fetched_now - fetched
            self.locked = {name for (name,) in session.execute(self.LOCKED)}


def test_a_batch_that_is_moved_is_read_along_the_index_and_no_further(stale, database):
    """By a plan that is kept, made when the partition was empty; with very many partitions by one for the batch."""
    with database.connect() as owner:
        owner.execute("select tide.inbox_create('commands')")
        for after in (0, 45_000, 59_020):
            moved = Move(stale, after)
            assert (moved.sequential, moved.fetched <= 110) == (0, True), "and the first of each partition above"
        assert len(moved.locked) > 3
        owner.execute("update tide.outbox set partitions_end = partitions_end + 101 * partition_size")
        moved = Move(stale, 45_100)
        assert (moved.sequential, moved.fetched <= 110, moved.last_id) == (0, True, 45_200)
        assert moved.locked <= {
            "message_1_40000",
            "message_1_60000",
            "message_1_80000",
            "message_1_100000",
            "message_1_rest",
        }
        assert "message_1_0" not in moved.locked
    others = stale.execute(
        "select c.relname from pg_locks l join pg_class c on c.oid = l.relation where c.relname like 'message_2%'"
    )
    assert others.fetchall() == []
