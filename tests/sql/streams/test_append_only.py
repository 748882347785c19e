"""Sources of which rows are only ever added: by the key alone, and by everything once that is not so."""

from collections.abc import Iterator

import pytest

from relay.stream_tables import VERSION
from tests.services.postgres import Database
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, behind, create, pipeline, refresh

ROWS = "select order_id, region, amount from orders"
SUMS = "select region, sum(amount) as amount from orders group by region"
STORED = "select count(*), count(region) from tide_stream.b_{}"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("create table orders (order_id int primary key, region text, amount numeric)")
        connection.execute("insert into orders values (1, 'north', 10)")
        yield connection


def stored(connection: Connection) -> tuple[int, int]:
    """How many rows are captured, and with their values."""
    [(source,)] = connection.execute("select 'orders'::regclass::oid").fetchall()
    [row] = connection.execute(STORED.format(source)).fetchall()  # type: ignore[arg-type]
    return row  # type: ignore[no-any-return]


def promises(connection: Connection) -> list[tuple[bool, bool]]:
    """Of each stream table: whether it goes by the promise, and whether that was broken."""
    return connection.execute(
        "select append_only, append_broken is not null from tide.stream order by stream_id"
    ).fetchall()


def follow(connection: Connection, *names: str) -> list[str]:
    """As a worker does: prepares, plans if that is needed, and refreshes, judged by the query."""
    for name in names:
        prepare = "select tide.stream_prepare(%s, %s)"
        if connection.execute(prepare, [pipeline(connection, name), VERSION]).fetchall() == [(True,)]:
            analyse_and_keep(connection, name)
    return [refresh(connection, name)[0] for name in names]


def test_of_a_row_that_was_added_the_key_is_stored_and_the_row_is_taken_from_the_table(connection):
    create(connection, "all_rows", ROWS, append_only=True, refresh_mode="DIFFERENTIAL")
    create(connection, "sums", SUMS, append_only=True, refresh_mode="DIFFERENTIAL")
    assert follow(connection, "all_rows", "sums") == ["FULL", "FULL"]
    for number in range(2, 5):
        connection.execute("insert into orders values (%s, 'south', 5)", [number])
        # Updates of no row break no promise.
        connection.execute("update orders set amount = 0 where order_id = -1")
        connection.execute("insert into orders values (1, 'x', 1) on conflict do nothing")
        assert [refresh(connection, name)[0] for name in ("all_rows", "sums")] == ["DIFFERENTIAL"] * 2
    assert stored(connection) == (3, 0)
    connection.execute("insert into orders select n, 'many', n from generate_series(10, 1000) n")
    assert refresh(connection, "all_rows")[:2] == ("DIFFERENTIAL", 991)
    assert refresh(connection, "sums")[0] == "DIFFERENTIAL"


@pytest.mark.parametrize(
    "statement",
    [
        "update orders set amount = amount + 1",
        "update orders set order_id = order_id + 100 where order_id = 2",
        "delete from orders where order_id = 2",
        "truncate orders",
        "insert into orders values (2, 'other', 7) on conflict (order_id) do update set region = excluded.region",
        "with gone as (delete from orders returning *) insert into orders select order_id + 50, region, 1 from gone",
    ],
)
def test_a_broken_promise_costs_a_whole_refresh_and_no_row(connection, statement):
    create(connection, "all_rows", ROWS, append_only=True, refresh_mode="DIFFERENTIAL")
    create(connection, "sums", SUMS, append_only=True, refresh_mode="DIFFERENTIAL")
    follow(connection, "all_rows", "sums")
    connection.execute("insert into orders values (2, 'south', 5), (3, 'west', 6)")
    connection.execute(statement)
    connection.execute("insert into orders values (20, 'south', 5)")
    # One goes on before anyone has prepared anything: by hand, or while the table is locked.
    assert refresh(connection, "all_rows")[0] == "FULL"
    connection.execute("insert into orders values (21, 'east', 5)")
    assert refresh(connection, "all_rows")[0] == "DIFFERENTIAL"
    told: list[str] = []
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    assert follow(connection, "sums") == ["FULL"]
    assert [line for line in told if "append_only is switched off" in line]
    assert promises(connection) == [(False, True)] * 2
    assert follow(connection, "all_rows", "sums")[0] == "FULL", "its capture was changed"
    connection.execute("insert into orders values (30, 'south', 5)")
    connection.execute("update orders set amount = 3 where order_id > 3")
    assert [refresh(connection, name)[0] for name in ("all_rows", "sums")] == ["DIFFERENTIAL"] * 2
    assert behind(connection, "all_rows") is behind(connection, "sums") is None


def test_it_holds_for_a_table_if_all_say_so_and_it_has_a_key(connection):
    create(connection, "all_rows", ROWS, append_only=True, refresh_mode="DIFFERENTIAL")
    create(connection, "sums", SUMS, refresh_mode="DIFFERENTIAL")
    follow(connection, "all_rows", "sums")
    connection.execute("insert into orders values (2, 'south', 5)")
    assert stored(connection) == (1, 1)
    connection.execute("select tide.alter_stream_table('sums', append_only => true)")
    follow(connection, "all_rows", "sums")
    connection.execute("insert into orders values (3, 'south', 5)")
    assert stored(connection) == (1, 0)
    assert [refresh(connection, name)[0] for name in ("all_rows", "sums")] == ["DIFFERENTIAL"] * 2
    # One more reader, that says nothing.
    create(connection, "late", "select region, max(amount) as most from orders group by region",
           refresh_mode="DIFFERENTIAL")  # fmt: skip
    follow(connection, "late", "all_rows", "sums")
    connection.execute("update orders set amount = 1 where order_id = 3")
    assert follow(connection, "late", "all_rows", "sums") == ["DIFFERENTIAL"] * 3
    connection.execute("select tide.drop_stream_table('late')")
    assert follow(connection, "all_rows", "sums") == ["FULL"] * 2
    connection.execute("insert into orders values (4, 'south', 5)")
    assert stored(connection) == (1, 0)
    connection.execute("alter table orders drop constraint orders_pkey")
    assert follow(connection, "all_rows", "sums") == ["FULL"] * 2
    connection.execute("insert into orders values (3, 'south', 5)")
    assert follow(connection, "all_rows") == ["DIFFERENTIAL"]
    assert promises(connection) == [(True, False)] * 2, "no one broke it"


def test_partitions_too(connection):
    connection.execute("""
        create table events (day int, id int, amount int, primary key (day, id)) partition by list (day);
        create table events_1 partition of events for values in (1);
        create table events_2 (id int not null, day int not null, dropped int, amount int);
        alter table events_2 drop column dropped;
        alter table events attach partition events_2 for values in (2);
    """)
    create(
        connection,
        "daily",
        "select day, sum(amount) as amount from events group by day",
        append_only=True,
        refresh_mode="DIFFERENTIAL",
    )
    follow(connection, "daily")
    connection.execute("insert into events values (1, 1, 5), (2, 2, 6)")
    connection.execute("insert into events_2 (day, id, amount) values (2, 3, 7)")
    assert refresh(connection, "daily")[0] == "DIFFERENTIAL"
    connection.execute("delete from events_2 where id = 3")
    assert follow(connection, "daily") == ["FULL"]
