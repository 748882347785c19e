"""What PostgreSQL tells the analysis, and what it does not let it do."""

import psycopg
import pytest

from tests.sql.streams.streams import create
from tests.stream_tables.oracle import describe


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute("""
            create table orders (order_id int, region text not null, amount numeric, unused int,
                                 unique (region, order_id), primary key (order_id));
            create table loose (a int unique, b int not null);
            create unique index on loose (b) where b > 0;
            create view large as select region, amount from orders where amount > 10;
        """)
        yield connection


def test_sources_are_described_with_their_keys_and_the_columns_that_are_read(connection):
    line = create(connection, "found", "select l.region, o.b from large l join loose o on o.b > 1")
    described = describe(connection, line)
    orders, loose = described.sources
    assert (orders.name, orders.key, orders.captured) == (
        "public.orders",
        ("order_id",),
        ("order_id", "region", "amount"),
    )
    assert (loose.name, loose.key, loose.captured) == ("public.loose", None, ("b",))
    assert [(column.name, column.type, column.not_null) for column in orders.columns][:3] == [
        ("order_id", "integer", True), ("region", "text", True), ("amount", "numeric", False),
    ]  # fmt: skip
    assert list(described.views) == ["public.large"]
    assert described.reason is None


def test_columns_say_what_equality_means_for_them(connection):
    connection.execute("""
        create table kinds (plain text, doc json, many int[], points point[], cash money);
    """)
    [kinds] = describe(connection, create(connection, "found", "select plain from kinds")).sources
    assert all(column.deterministic for column in kinds.columns)
    assert {column.name: column.hashable for column in kinds.columns} == {
        "plain": True, "doc": False, "many": True, "points": False, "cash": False,
    }  # fmt: skip


def test_functions_are_described_as_what_they_are(connection):
    query = "select region, string_agg(abs(amount)::text, '') as l, generate_series(1, 2) n from orders group by region"
    functions = describe(connection, create(connection, "found", query)).functions
    said = {
        name: (functions[name].aggregate, functions[name].set_returning)
        for name in ("string_agg", "abs", "generate_series")
    }
    assert said == {"string_agg": (True, False), "abs": (False, False), "generate_series": (False, True)}


def test_a_table_that_the_owner_may_read_only_through_a_view_is_not_read_by_itself(connection, database):
    with database.admin() as admin:
        admin.execute("""create table secrets (a int); create view shown as select a from secrets;
                         grant select on shown to tide_owner; grant trigger on secrets to tide_owner""")
    line = create(connection, "found", "select a from shown")
    assert describe(connection, line).reason == "its owner may not read public.secrets itself"


def test_virtual_columns_are_not_captured(connection, pg):
    if pg.version < 18:
        pytest.skip("virtual columns came with PostgreSQL 18")
    connection.execute("create table doubled (a int, b int generated always as (a * 2) virtual)")
    line = create(connection, "found", "select b from doubled")
    assert describe(connection, line).reason == "it reads a virtual column of public.doubled"
    line = create(connection, "plain", "select a from doubled")
    assert describe(connection, line).reason is None


def test_reading_a_select_runs_nothing_and_leaves_nothing(connection):
    connection.execute("""
        create table called ();
        create function trap() returns int language plpgsql immutable
            as 'begin insert into called default values; return 1; end';
    """)
    line = create(connection, "found", "select region from orders")
    [(read,)] = connection.execute(
        "select tide.stream_read(%s, 'select public.trap() as t, o.amount::numeric(5,1) from public.orders o')", [line]
    )
    assert [(column["name"], column["type"]) for column in read["columns"]] == [
        ("t", "integer"),
        ("amount", "numeric(5,1)"),
    ]
    assert (
        read["text"].split()
        == ["SELECT", "trap()", "AS", "t,", "(amount)::numeric(5,1)", "AS", "amount", "FROM", "public.orders", "o"]
        or read["text"]
    )
    assert connection.execute("select count(*) from called").fetchall() == [(0,)]
    assert connection.execute(
        "select count(*) from pg_class where relname like 'read_%' and relkind = 'v'"
    ).fetchall() == [(0,)]


@pytest.mark.parametrize(
    "text",
    ["select 1 as a; drop table public.orders", "select 1 as a;", "select 1) q; drop table public.orders --", None],
)
def test_only_one_statement_is_read(connection, text):
    line = create(connection, "found", "select region from orders")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="one statement"):
        connection.execute("select tide.stream_read(%s, %s)", [line, text])


@pytest.mark.parametrize(
    "text",
    [
        "insert into public.orders values (1)",
        "with gone as (delete from public.orders returning *) select * from gone",
        "drop table public.orders",
        "select 1 into made",
    ],
)
def test_only_a_select_is_read(connection, text):
    line = create(connection, "found", "select region from orders")
    with pytest.raises(psycopg.Error):
        connection.execute("select tide.stream_read(%s, %s)", [line, text])
    connection.execute("select from orders")


@pytest.mark.parametrize("call", ["tide.stream_describe(%s)", "tide.stream_read(%s, 'select 1 as a')"])
@pytest.mark.parametrize("line", ["streams.missing", None])
def test_a_pipeline_that_is_none_of_a_stream_table_is_refused(connection, call, line):
    with pytest.raises(psycopg.errors.UndefinedObject, match="is not one of a stream table"):
        connection.execute(f"select {call}", [line])
