"""Mode IMMEDIATE: how it begins and ends while others write, and what becomes of it when things change."""

import pytest

from relay.operations.doctor.streams import streams
from relay.settings import Settings
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.maintained import KINDS, NAMED, SUMS, TABLES, hand_over, maintain
from tests.sql.streams.streams import assert_equal, behind, create, pipeline, refresh


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        yield connection


def modes(connection):
    return dict(
        connection.execute("select replace(name, 'public.', ''), effective_mode from tide.stream_tables()").fetchall()
    )


def made(connection):
    """What there is for the sake of writers: triggers that fire, and tables."""
    return connection.execute("""
        select tgname::text from pg_trigger where tgname ~ '^tide_immediate' and tgenabled = 'O'
         union all select relname from pg_class where relnamespace = 'tide_stream'::regnamespace and relname ~ '^told_'
    """).fetchall()


@pytest.mark.parametrize("name", KINDS)
def test_a_renamed_column_or_table_or_a_lost_key_fails_no_writer(connection, name):
    maintain(connection, name, KINDS[name])
    for change in (
        "alter table orders rename column amount to price; alter table orders rename to purchases",
        "alter table customers rename column name to called",
        "alter table purchases drop constraint orders_pkey",
    ):
        connection.execute(change)
        connection.execute("insert into purchases values (9, 'n', 11, 2), (10, null, 12, 1)")
        connection.execute("update purchases set price = price + 1, customer_id = 1 where order_id > 2")
        assert_equal(connection, name)
        connection.execute("delete from purchases where order_id > 8")
        assert_equal(connection, name)
    connection.execute("insert into purchases select * from purchases")
    assert_equal(connection, name)
    connection.execute("delete from purchases where ctid in (select max(ctid) from purchases group by order_id)")
    assert_equal(connection, name)
    assert behind(connection, name) == "its triggers or its sources were changed"
    hand_over(connection, name)
    assert behind(connection, name) is None
    connection.execute("delete from purchases where order_id = 2")
    assert_equal(connection, name)


@pytest.mark.parametrize("name", KINDS)
def test_it_begins_and_ends_at_any_time(connection, name):
    create(connection, name, KINDS[name], refresh_mode="DIFFERENTIAL")
    analyse_and_keep(connection, name)
    refresh(connection, name)
    for end in ("refresh_mode => 'DIFFERENTIAL'", "schedule => '5s'", "status => 'SUSPENDED'", "tier => 'frozen'"):
        connection.execute("insert into orders select max(order_id) + 1, 'e', 30, 1 from orders")
        connection.execute(
            f"select tide.alter_stream_table('{name}', schedule => 'IMMEDIATE', status => 'ACTIVE', tier => 'hot')"
        )
        connection.execute("insert into orders select max(order_id) + 1, 'e', 31, 2 from orders")
        hand_over(connection, name)
        connection.execute("insert into orders select max(order_id) + 1, 'e', 32, 2 from orders")
        assert_equal(connection, name)
        assert modes(connection) == {name: "IMMEDIATE"}
        connection.execute(f"select tide.alter_stream_table('{name}', {end})")
        assert made(connection) == []
        connection.execute("insert into orders select max(order_id) + 1, 'e', 33, 2 from orders")
        assert behind(connection, name)
        refresh(connection, name)
    connection.execute(
        f"select tide.create_or_replace_stream_table('{name}', %s, refresh_mode => 'IMMEDIATE', tier => 'hot')",
        [KINDS[name] + " "],
    )
    hand_over(connection, name)
    connection.execute(f"select tide.drop_stream_table('{name}')")
    assert made(connection) == []
    assert (
        connection.execute(
            "select tgname from pg_trigger where tgrelid = 'orders'::regclass and not tgisinternal"
        ).fetchall()
        == []
    )
    assert (
        connection.execute("select proname from pg_proc where pronamespace = 'tide_stream'::regnamespace").fetchall()
        == []
    )
    connection.execute("insert into orders values (100, 'n', 1, 1)")


def test_a_writer_in_the_way_is_not_waited_for(connection, database):
    create(connection, "sums", SUMS, refresh_mode="IMMEDIATE")
    analyse_and_keep(connection, "sums")
    refresh(connection, "sums")
    with database.connect(autocommit=False) as slow:
        slow.execute("insert into orders values (9, 'n', 1, 2)")
        line = pipeline(connection, "sums")
        assert connection.execute("select tide.stream_immediate_begin(%s)", [line]).fetchall() == [(False,)]
        assert connection.execute("select status, behind from tide.stream_tables()").fetchall() == [
            ("INITIALIZING", "its writers do not maintain it yet")
        ]
        [found] = streams(connection, Settings(postgres_url=database.url))
        assert "public.sums: IMMEDIATE, but writers do not maintain them yet" in found.found
        slow.commit()
    assert connection.execute("select tide.stream_immediate_begin(%s)", [line]).fetchall() == [(True,)]
    assert_equal(connection, "sums")


@pytest.mark.parametrize("name", KINDS)
def test_a_refresh_compares_and_repairs(connection, name):
    maintain(connection, name, KINDS[name])
    connection.execute(f"select set_config('tide.refreshing', '{name}'::regclass::oid::text, false)")
    connection.execute(f"delete from {name}; reset tide.refreshing")
    connection.execute(f"select tide.refresh_stream_table('{name}')")
    assert behind(connection, name) == "someone asked for a refresh"
    assert refresh(connection, name)[0] == "FULL"
    assert behind(connection, name) is None
    connection.execute("insert into orders values (9, 'n', 12, 2)")
    assert_equal(connection, name)
    assert refresh(connection, name)[0] == "NO_DATA"


def test_what_reads_it_is_scheduled_or_maintained_too(connection):
    maintain(connection, "named", NAMED)
    create(connection, "names", "select name, count(*) as orders from named group by name", refresh_mode="DIFFERENTIAL")
    assert connection.execute("select schedule from tide.stream_tables() where name = 'public.names'").fetchall() == [
        ("1s",)
    ]
    analyse_and_keep(connection, "names")
    refresh(connection, "names")
    maintain(connection, "above", "select orders, count(*) as names from names group by orders")
    maintain(
        connection,
        "beside",
        "select n.order_id, o.region, n.name from named n join orders o on o.order_id = n.order_id",
    )
    connection.execute("insert into orders values (9, 'n', 12, 2), (10, 'n', 12, 2)")
    assert_equal(connection, "beside")
    connection.execute("update customers set name = 'ann' where customer_id = 2")
    assert_equal(connection, "beside")
    assert refresh(connection, "names")[0] == "DIFFERENTIAL"
    assert_equal(connection, "above")


@pytest.mark.parametrize("name", KINDS)
def test_its_outbox_has_the_change_in_the_transaction_of_the_writer(connection, name):
    maintain(connection, name, KINDS[name])
    connection.execute(f"select tide.stream_outbox_enable('{name}')")
    connection.execute("begin")
    connection.execute("update orders set customer_id = 2, amount = 30, region = 's' where order_id = 1")
    connection.execute("savepoint one; delete from orders; rollback to one")
    connection.execute("prepare transaction 'immediate'")
    published = f"""select m.payload from tide.message m join tide.outbox o using (outbox_id)
                     where o.name = 'public.{name}' order by m.id"""
    assert connection.execute(published).fetchall() == []
    connection.execute("commit prepared 'immediate'")
    [(payload,)] = connection.execute(published).fetchall()
    assert payload["refresh_id"] is None
    assert sorted(map(str, payload["inserted"])) == sorted(
        str(row)
        for (row,) in connection.execute(f"select to_jsonb(t) from {name} t").fetchall()
        if row in payload["inserted"]
    )
    assert payload["inserted"]
    connection.execute("truncate orders")
    rows = {str(row) for (one,) in connection.execute(published).fetchall() for row in one["deleted"]}
    assert {str(row) for row in payload["inserted"]} <= rows
    assert connection.execute("select count(*) from tide_stream.told_1").fetchall() == [(0,)]
    connection.execute(f"select tide.stream_outbox_disable('{name}')")
    connection.execute("insert into orders values (9, 'n', 12, 2)")
    assert_equal(connection, name)


def test_a_copy_of_the_database_is_right_before_the_fleet_has_seen_it(connection):
    for name, query in KINDS.items():
        maintain(connection, name, query)
    # As after a restore: numbers of tables in functions are of others, and the cluster is another.
    connection.execute("update tide.stream_state set cluster = 'another'")
    connection.execute(
        "alter table orders rename column amount to price; alter table customers rename column name to called"
    )
    connection.execute("insert into orders values (9, 'n', 12, 2); update customers set called = 'x'")
    connection.execute("delete from orders where order_id < 3")
    for name in KINDS:
        assert_equal(connection, name)
        assert behind(connection, name) == "the database is a copy"
        hand_over(connection, name)
        assert behind(connection, name) is None


@pytest.mark.parametrize("name", KINDS)
def test_a_snapshot_is_of_the_moment_and_restoring_it_takes_the_table_from_its_writers(connection, name):
    maintain(connection, name, KINDS[name])
    create(connection, "other", SUMS, refresh_mode="DIFFERENTIAL")
    connection.execute(f"select tide.snapshot_stream_table('{name}', 'copy')")
    connection.execute("insert into orders values (9, 'n', 12, 2); delete from orders where order_id = 2")
    [(why,)] = connection.execute(f"select tide.restore_from_snapshot('{name}', 'copy')").fetchall()
    assert why
    assert modes(connection)[name] != "IMMEDIATE"
    connection.execute("delete from orders where order_id = 9")
    hand_over(connection, name)
    assert_equal(connection, name)
    # What it has seen holds nothing back in the buffers of others.
    analyse_and_keep(connection, "other")
    refresh(connection, "other")
    connection.execute("insert into orders values (10, 'n', 12, 2)")
    refresh(connection, "other")
    connection.execute("select tide.stream_clean()")
    sources = "select b.source from tide.stream_buffer b where b.source = 'orders'::regclass"
    [(source,)] = connection.execute(sources).fetchall()
    assert connection.execute(f"select count(*) from tide_stream.b_{source}").fetchall() == [(0,)]
