"""Hidden nodes: parts of a query that are kept in tables of their own, and live and end with the stream table."""

import psycopg
import pytest
from psycopg.types.json import Jsonb

from relay.stream_tables import VERSION
from tests.sql.streams.analysed import analyse_and_keep, plan_of
from tests.sql.streams.snapshots import restore, take
from tests.sql.streams.streams import assert_equal, create, pipeline, refresh

ORDERS = """
    create table orders (order_id int primary key, region text not null, amount numeric(10,2) not null);
    create table regions (region text primary key, country text not null);
    insert into orders select i, (array['north', 'south', 'east'])[1 + i % 3], i % 7 from generate_series(1, 60) i;
    insert into regions values ('north', 'no'), ('south', 'it'), ('east', 'pl');
    create table secrets (secret text);
"""
SIZES = """
    select t.orders, count(*) as regions from (select region, count(*) as orders from orders group by region) t
     group by t.orders
"""
BUSIEST = """
    select r.country, sum(o.amount) as amount from orders o join regions r on r.region = o.region
     group by r.country order by sum(o.amount) desc, r.country limit 2
"""


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(ORDERS)
        yield connection


def made(connection, name, query, **options):
    create(connection, name, query, **{"refresh_mode": "DIFFERENTIAL", **options})
    assert analyse_and_keep(connection, name) is None
    refresh(connection, name)


def hidden(connection):
    """What there is in tide_stream beside queries and captured rows."""
    return connection.execute(
        "select relname from pg_class where relnamespace = 'tide_stream'::regnamespace and relkind in ('r', 'v')"
        " and relname !~ '^([bdm]_[0-9]+|q_[0-9]*01|q_1)$' order by 1"
    ).fetchall()


def last(connection):
    return connection.execute(
        "select action, strategy, rows_inserted, rows_updated, rows_deleted from tide.stream_history"
        " order by refresh_id desc limit 1"
    ).fetchone()


def test_each_node_is_followed_in_its_own_way(connection):
    made(connection, "busiest", BUSIEST)
    connection.execute("insert into orders values (100, 'east', 500)")
    refresh(connection, "busiest")
    assert last(connection) == ("DIFFERENTIAL", "linear + full", 1, 0, 1)
    connection.execute("update regions set country = 'de' where region = 'south'")
    refresh(connection, "busiest")
    assert last(connection)[:2] == ("DIFFERENTIAL", "linear + full")


def test_a_node_that_does_not_change_ends_the_refresh(connection):
    made(connection, "sizes", SIZES)
    before = connection.execute("select ctid, * from sizes order by 2").fetchall()
    connection.execute("update orders set region = 'south' where order_id = 3")
    connection.execute("update orders set region = 'north' where order_id = 1")
    refresh(connection, "sizes")
    assert last(connection) == ("DIFFERENTIAL", "linear", 0, 0, 0)
    assert connection.execute("select ctid, * from sizes order by 2").fetchall() == before


def test_many_changes_at_once_and_whole_refreshes_keep_the_nodes(connection):
    made(connection, "sizes", SIZES)
    for statement, action in [
        ("insert into orders select i, 'r' || i % 97, i from generate_series(1000, 3000) i", "DIFFERENTIAL"),
        ("truncate orders", "FULL"),
        ("insert into orders select i, 'r' || i % 3, i from generate_series(1, 7) i", "DIFFERENTIAL"),
        ("update tide.stream_state set frontier = null", "FULL"),
        ("delete from orders where order_id < 3", "DIFFERENTIAL"),
    ]:
        connection.execute(statement)
        assert refresh(connection, "sizes")[0] == action


def test_a_node_that_is_not_what_it_should_be_is_computed_again(connection):
    made(connection, "sizes", SIZES)
    connection.execute("delete from tide_stream.n_2 where c0 = 'north'")
    connection.execute("delete from orders where region = 'north'")
    refresh(connection, "sizes")
    [(action, reason)] = connection.execute(
        "select action, reason from tide.stream_history order by refresh_id desc limit 1"
    ).fetchall()
    assert (action, reason) == (
        "FULL",
        "the incremental refresh failed: the table did not hold the rows that were to be changed",
    )
    connection.execute("insert into orders values (100, 'west', 1)")
    assert refresh(connection, "sizes")[0] == "DIFFERENTIAL"


@pytest.mark.parametrize("changed", [True, False])
def test_nodes_that_end_after_the_snapshot_of_a_refresh_fail_it_not(connection, database, changed):
    """Its snapshot shows a plan of which the tables are gone: they are opened as they are now."""
    made(connection, "sizes", SIZES)
    if changed:
        connection.execute("insert into orders values (100, 'west', 1)")
    else:
        connection.execute("update tide.stream_state set frontier = null")
    with database.connect(autocommit=False) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select 1")
        connection.execute("select tide.alter_stream_table('sizes', refresh_mode => 'FULL')")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("select tide.stream_refresh('streams.public.sizes')")
        other.rollback()
    refresh(connection, "sizes")
    assert_equal(connection, "sizes")


def test_several_are_refreshed_in_one_transaction(connection):
    made(connection, "sizes", SIZES)
    made(connection, "busiest", BUSIEST)
    connection.execute("insert into orders values (100, 'east', 500)")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        for name in ("sizes", "busiest"):
            connection.execute("select tide.refresh_stream_table(%s)", [name])
            assert_equal(connection, name)
    connection.isolation_level = None


@pytest.mark.parametrize(
    "ending",
    [
        "select tide.drop_stream_table('found')",
        "select tide.alter_stream_table('found', refresh_mode => 'FULL')",
        "select tide.alter_stream_table('found', query => 'select 1::bigint orders, count(*) regions from orders')",
        "select tide.create_or_replace_stream_table('found', 'select count(*) orders, 2::bigint regions from orders')",
    ],
)
def test_nodes_end_with_what_they_were_made_for(connection, ending):
    made(connection, "found", SIZES)
    made(connection, "other", BUSIEST)
    others = [(name,) for (name,) in hidden(connection) if "10" in name]
    assert {"n_2", "q_2", "s_2", "d_n2", "r_1"} <= {name for (name,) in hidden(connection)}
    connection.execute(ending)
    assert hidden(connection) == others
    assert connection.execute("select count(*) from tide.stream_plan where family = 1").fetchone() == (0,)


def test_a_snapshot_knows_nothing_of_nodes(connection):
    made(connection, "busiest", BUSIEST)
    take(connection, name="busiest")
    assert restore(connection, name="busiest") == "its hidden nodes are of another moment"
    connection.execute("insert into orders values (100, 'east', 500)")
    assert refresh(connection, "busiest")[0] == "FULL"


def test_its_script_says_nothing_of_nodes(connection):
    made(connection, "busiest", BUSIEST)
    [(script,)] = connection.execute("select tide.export_definition('busiest')").fetchall()
    assert "tide_stream" not in script


def node(query, number=2, **more):
    found = {"number": number, "query": query, "kind": "rows", "key": None, "groups": 0, "reads": [], "changes": []}
    return {**found, "fields": [], "indexes": [], "exact": {}, "version": VERSION, **more}


@pytest.mark.parametrize(
    ("nodes", "query", "problem"),
    [
        ([node("select secret as c0 from public.secrets")], None, "it reads public.secrets"),
        ([node("select order_id as c0 from public.orders", number=102)], None, "has no node 102"),
        ([node("select order_id as c0 from public.orders", number=1)], None, "has no node 1"),
        ([node("select order_id as c0 from public.orders; drop table public.secrets")], None, "more than one"),
        ([node("select pg_notify('a', 'b')::text as c0 from public.orders")], None, "it calls pg_notify"),
        ([node("select c0 from tide_stream.n_102")], None, "it reads tide_stream.n_102"),
        ([], "select secret as orders, 1::bigint as regions from public.secrets", "it reads public.secrets"),
        ([], "select order_id as orders, 1::bigint as regions from public.orders", "has the columns"),
    ],
)
def test_a_node_that_does_what_the_query_does_not_is_refused(connection, nodes, query, problem):
    made(connection, "found", SIZES)
    made(connection, "other", BUSIEST)
    plan = {**plan_of(connection, "found").to_json(), "nodes": nodes, "query": query}
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        connection.execute("select tide.stream_keep(%s, %s)", [pipeline(connection, "found"), Jsonb(plan)])
    assert problem in str(refused.value)
    assert connection.execute("select to_regclass('secrets') is not null").fetchone() == (True,)


def test_a_statement_for_a_node_of_another_is_refused(connection):
    made(connection, "found", SIZES)
    made(connection, "other", BUSIEST)
    for target, sources in ((102, []), (2, [-102])):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "select tide.stream_keep_change(%s, %s, 'full', 'rows', null, 'no', %s)",
                [pipeline(connection, "found"), sources, target],
            )


def test_sources_that_were_not_foreseen_to_change_together_are_asked_for_node_by_node(connection):
    tables = [f"part_{number}" for number in range(5)]
    for table in tables:
        connection.execute(f"create table {table} (order_id int primary key, n int)")  # type: ignore[arg-type]
        connection.execute(f"insert into {table} select i, i % 4 from generate_series(1, 20) i")  # type: ignore[arg-type]
    joined = " ".join(f"join {table} on {table}.order_id = o.order_id" for table in tables[:4])
    counts = f"select part_0.n, count(*) as c from orders o {joined} group by part_0.n"
    query = (
        f"select q.n, p.n as m, q.c from ({counts}) q join part_4 p on p.order_id = q.n order by q.c desc, q.n limit 3"
    )
    made(connection, "parts", query)
    connection.execute("update part_0 set n = 9 where order_id = 1; delete from part_1 where order_id = 2")
    line = pipeline(connection, "parts")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        [(action, missing)] = connection.execute(
            "select action, missing from tide.stream_refresh(%s)", [line]
        ).fetchall()
        assert_equal(connection, "parts")
    connection.isolation_level = None
    assert action == "FULL"
    steps = plan_of(connection, "parts").unforeseen(frozenset(missing))
    assert steps
    for step in steps:
        connection.execute(
            "select tide.stream_keep_change(%s, %s, %s, %s, %s, %s, %s)",
            [
                line,
                sorted(step.changed),
                step.change.strategy,
                step.change.form,
                step.change.text,
                step.change.reason,
                step.number,
            ],
        )
    connection.execute("update part_0 set n = 8 where order_id = 1; delete from part_1 where order_id = 3")
    assert refresh(connection, "parts")[0] == "DIFFERENTIAL"


def test_what_is_hidden_is_listed_with_its_size(connection):
    create(connection, "busiest", BUSIEST, refresh_mode="DIFFERENTIAL")
    asked = "select place, relation, kind, reads, strategies, is_populated, rows_estimate from tide.stream_nodes(%s)"
    assert connection.execute(asked, ["busiest"]).fetchall() == []
    assert analyse_and_keep(connection, "busiest") is None
    [sums, itself] = connection.execute(asked, ["busiest"]).fetchall()
    node = "tide_stream.n_2"
    assert sums[:6] == (1, node, "state", ["public.orders", "public.regions"], ["linear"], False)
    assert itself == (2, "public.busiest", "rows", [node], ["full"], False, None)
    refresh(connection, "busiest")
    connection.execute("analyze busiest")
    [sums, itself] = connection.execute(asked, ["busiest"]).fetchall()
    assert (sums[5], sums[6]) == (True, 3)
    assert (itself[5], itself[6]) == (True, 2)
    sized = "select table_bytes, state_bytes, query from tide.stream_nodes('busiest') order by place"
    [(table, state, query), (_, none, whole)] = connection.execute(sized).fetchall()
    assert table > 0
    assert state > 0
    assert none is None
    assert "sum(" in query
    assert "LIMIT 2" in whole
    connection.execute("insert into regions select 'r' || n, 'c' || n from generate_series(1, 3000) n")
    connection.execute("insert into orders select 1000 + n, 'r' || n, 1 from generate_series(1, 3000) n")
    refresh(connection, "busiest")
    [(grown, more, _), _] = connection.execute(sized).fetchall()
    assert grown > table
    assert more > state
    with pytest.raises(psycopg.errors.UndefinedObject):
        connection.execute(asked, ["nothing"])


def test_a_query_that_is_computed_as_a_whole_has_no_nodes(connection):
    create(connection, "whole", "select order_id, rank() over (order by amount) as place from orders")
    assert analyse_and_keep(connection, "whole") is not None
    assert connection.execute("select * from tide.stream_nodes('whole')").fetchall() == []


def test_sizes_are_those_of_the_tables(connection):
    made(connection, "sizes", SIZES)
    listed = connection.execute("select relation, table_bytes, state_bytes from tide.stream_nodes('sizes')").fetchall()
    for relation, table, state in listed:
        number = connection.execute("select (tide.find_stream('sizes')).stream_id").fetchone()[0]
        number += int(relation.startswith("tide_stream"))
        measured = connection.execute(
            "select pg_total_relation_size(%s::regclass), pg_total_relation_size(to_regclass(%s))",
            [relation, f"tide_stream.s_{number}"],
        ).fetchone()
        assert (table, state) == measured
