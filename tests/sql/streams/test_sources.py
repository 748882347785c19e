"""Sources whose shape, partitions and triggers change while stream tables read them."""

import psycopg
import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import behind, create, refresh

UNSEEN = "a trigger that captures changes is missing or disabled, or a source became part of another table"


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute("""
            create table orders (order_id int, region text, amount numeric, note text) partition by range (order_id);
            create table orders_1 partition of orders for values from (0) to (100);
            create table orders_2 partition of orders for values from (100) to (200) partition by list (region);
            create table orders_2a partition of orders_2 default;
            create table plain (id int primary key, name text);
            insert into orders values (1, 'north', 10, ''), (101, 'south', 20, '');
        """)
        create(connection, "amounts", "select region, amount from orders")
        refresh(connection, "amounts")
        yield connection


@pytest.mark.parametrize("table", ["orders", "orders_1", "orders_2", "orders_2a"])
def test_writes_that_name_a_partition_are_seen(connection, table):
    assert behind(connection, "amounts") is None
    number = 7 if table in ("orders", "orders_1") else 107
    connection.execute(f"insert into {table} values ({number}, 'west', 1, '')")
    assert refresh(connection, "amounts") == ("FULL", 1, 0)


def test_a_partition_that_is_added_or_removed_is_seen(connection):
    connection.execute("create table orders_3 partition of orders for values from (200) to (300)")
    assert behind(connection, "amounts") == UNSEEN
    connection.execute("select tide.stream_prepare((select pipeline from tide.stream), 1)")
    refresh(connection, "amounts")
    assert behind(connection, "amounts") is None
    connection.execute("insert into orders_3 values (201, 'east', 3, '')")
    assert refresh(connection, "amounts") == ("FULL", 1, 0)
    connection.execute("alter table orders detach partition orders_3")
    assert refresh(connection, "amounts") == ("FULL", 0, 1)
    connection.execute("alter table orders attach partition orders_3 for values from (200) to (300)")
    assert refresh(connection, "amounts") == ("FULL", 1, 0)


def test_a_part_of_another_table_is_computed_each_time(connection):
    """Statements for the whole fire no trigger of the part."""
    connection.execute("create table heir () inherits (plain)")
    for table in ("orders_1", "heir"):
        create(connection, f"of_{table}", f"table {table}")
        assert refresh(connection, f"of_{table}")[0] == "FULL"
        assert behind(connection, f"of_{table}") == f"changes of public.{table} cannot be captured"


@pytest.mark.parametrize(
    ("becomes", "statement"),
    [
        ("alter table whole attach partition part default", "insert into whole values (1, 'unseen')"),
        ("alter table part inherit whole", "update whole set name = 'unseen'"),
        ("create table heir () inherits (part)", "insert into heir values (1, 'unseen')"),
    ],
)
def test_a_table_that_becomes_part_of_another_is_computed_from_then_on(connection, becomes, statement):
    connection.execute(f"""
        create table part (id int, name text);
        insert into part values (1, 'a');
        create table whole (id int, name text) {"" if " inherit " in becomes else "partition by list (id)"};
    """)
    create(connection, "names", "select name from part")
    analyse_and_keep(connection, "names")
    refresh(connection, "names")
    connection.execute(becomes)
    connection.execute(statement)
    assert behind(connection, "names") == UNSEEN
    refresh(connection, "names")
    assert connection.execute("select 'unseen' in (table names)").fetchone() == (True,)
    connection.execute("select tide.stream_prepare('streams.public.names', 1)")
    refresh(connection, "names")
    assert behind(connection, "names") == "changes of public.part cannot be captured"
    assert connection.execute("select count(*) from pg_trigger where tgrelid = 'part'::regclass").fetchone() == (0,)


def test_a_trigger_that_was_off_for_a_while_is_seen(connection):
    create(connection, "names", "select name from plain")
    refresh(connection, "names")
    connection.execute("alter table plain disable trigger all")
    assert behind(connection, "names") == UNSEEN
    connection.execute("insert into plain values (1, 'unseen')")
    connection.execute("alter table plain enable trigger all")
    assert behind(connection, "names") == "the capture of its sources was changed"
    assert refresh(connection, "names") == ("FULL", 1, 0)
    assert behind(connection, "names") is None


def test_columns_can_be_renamed_and_others_changed(connection):
    connection.execute("alter table orders rename column amount to price")
    connection.execute("alter table orders alter column note type varchar(10)")
    connection.execute("alter table orders add column extra int")
    connection.execute("insert into orders (order_id, region, price) values (9, 'west', 4)")
    assert refresh(connection, "amounts") == ("FULL", 1, 0)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        connection.execute("alter table orders drop column price")


def test_a_cascade_of_a_foreign_key_is_seen(connection):
    connection.execute("create table part (plain_id int references plain on delete cascade, size int)")
    connection.execute("insert into plain values (1, 'a')")
    connection.execute("insert into part values (1, 5)")
    create(connection, "sizes", "select size from part")
    refresh(connection, "sizes")
    connection.execute("delete from plain")
    assert refresh(connection, "sizes") == ("FULL", 0, 1)


def test_what_is_dropped_leaves_no_trigger(connection):
    create(connection, "regions", "select region from orders")
    connection.execute("select tide.drop_stream_table('amounts')")
    refresh(connection, "regions")
    connection.execute("insert into orders values (8, 'west', 1, '')")
    assert behind(connection, "regions") == "its sources changed"
    connection.execute("select tide.drop_stream_table('regions')")
    assert connection.execute("select count(*) from pg_trigger where tgname like 'tide_stream%'").fetchone() == (0,)
    connection.execute("select tide.drop_stream_table('regions', if_exists => true)")
    for table in ("stream", "stream_change", "stream_source", "stream_state", "pipeline", "drain"):
        assert connection.execute(f"select count(*) from tide.{table}").fetchone() == (0,)


def test_a_table_is_captured_once_whatever_reads_it(connection):
    [(before,)] = connection.execute(
        "select count(*) from pg_trigger where tgname like 'tide_stream_insert%'"
    ).fetchall()
    create(connection, "regions", "select region from orders")
    assert connection.execute("select count(*) from pg_trigger where tgname like 'tide_stream_insert%'").fetchone() == (
        before,
    )


def test_a_transaction_of_many_statements_is_noted_once(connection):
    connection.execute("select tide.alter_stream_table('amounts', refresh_mode => 'FULL')")
    with connection.transaction():
        for number in range(20):
            connection.execute("insert into orders values (%s, 'x', 1, '')", [number])
    assert connection.execute("select count(*) from tide.stream_change").fetchone() == (1,)


def test_a_pipeline_of_a_stream_table_is_not_deleted_by_itself(connection):
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="belongs to a stream table"):
        connection.execute("select tide.relay_delete(pipeline) from tide.stream")
    with pytest.raises(psycopg.errors.WrongObjectType, match="is of a stream table"):
        connection.execute("select tide.relay_replay(pipeline, 1, 2) from tide.stream")
