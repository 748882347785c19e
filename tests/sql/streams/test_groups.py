"""Stream tables that are refreshed as one: which they are, and that they show one state."""

import random
from collections.abc import Iterator

import pytest

from tests.services.postgres import Database
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.groups import ORDERS, groups, members, together
from tests.sql.streams.streams import Connection, behind, create, pipeline, refresh

COUNT = "select region, count(*) as orders from orders group by region"
SUM = "select region, sum(amount) as amount from orders group by region"
PAIR = "select c.region, c.orders, s.amount from counts c join sums s on s.region = c.region"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(ORDERS)
        connection.execute("insert into orders values (1, 'north', 10), (2, 'south', 20)")
        yield connection


@pytest.fixture
def diamond(connection: Connection) -> Connection:
    """`pair` reads `counts` and `sums`, which read the orders: all are followed by changes, and show the orders."""
    for name, query in {"counts": COUNT, "sums": SUM, "pair": PAIR}.items():
        create(connection, name, query, refresh_mode="DIFFERENTIAL")
        assert analyse_and_keep(connection, name) is None
    assert together(connection, "pair") == {"counts": "FULL", "sums": "FULL", "pair": "FULL"}
    return connection


def config(connection: Connection, name: str) -> dict[str, object]:
    [(found,)] = connection.execute(
        "select config from tide.pipeline where name = %s", [pipeline(connection, name)]
    ).fetchall()
    return dict(found)


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ({"a": "orders", "b": "orders"}, []),
        ({"a": "orders", "b": "a", "c": "b"}, []),
        ({"a": "orders", "b": "orders", "c": "a b"}, [["a", "b", "c"]]),
        # What lies above the lowest table that two ways have in common is one way.
        ({"top": "orders", "a": "top", "b": "top", "c": "a b"}, [["a", "b", "c"]]),
        # A way may have several steps, or none.
        ({"a": "orders", "b": "a", "c": "b", "d": "c orders"}, [["a", "b", "c", "d"]]),
        # Two that have a member in common are one; what meets nowhere is none.
        (
            {"a": "orders", "b": "orders", "c": "orders", "d": "a b", "e": "b c", "f": "customers", "g": "f d"},
            [["a", "b", "c", "d", "e"]],
        ),
        ({"a": "orders", "b": "customers", "c": "a b"}, []),
        # Two diamonds, one beneath the other, are apart.
        (
            {"a": "orders", "b": "orders", "c": "a b", "d": "c", "e": "c", "f": "d e"},
            [["a", "b", "c"], ["d", "e", "f"]],
        ),
        # Both ways meet in c already, and c is on a way to d with a table that lies above it.
        ({"a": "orders", "b": "orders a", "c": "b", "d": "c a"}, [["a", "b", "c", "d"]]),
    ],
)
def test_what_lies_between_a_table_and_where_its_ways_meet_again_is_a_group(connection, queries, expected):
    connection.execute("create table customers (order_id int primary key)")
    for name, sources in queries.items():
        reads = " union all ".join(f"select order_id from {source}" for source in sources.split())
        create(connection, name, reads)
    assert groups(connection) == expected


def test_one_that_wants_none_of_it_is_alone_and_a_refresh_group_holds_what_meets_nowhere(connection):
    create(connection, "counts", COUNT)
    create(connection, "sums", SUM, diamond_consistency="none")
    create(connection, "pair", PAIR)
    assert groups(connection) == [["counts", "pair"]]
    create(connection, "most", "select max(amount) as most from orders", refresh_group="books")
    connection.execute("select tide.alter_stream_table('sums', refresh_group => 'books')")
    assert groups(connection) == [["counts", "pair"], ["sums", "most"]]
    connection.execute("select pgtrickle.alter_stream_table('pair', diamond_consistency => 'none')")
    assert groups(connection) == [["sums", "most"]]
    connection.execute("select tide.alter_stream_table('most', refresh_group => '')")
    assert groups(connection) == []
    assert [config(connection, name).get("part_of") for name in ("counts", "sums", "pair", "most")] == [None] * 4


def test_a_group_is_refreshed_by_changes_in_one_transaction_and_nothing_is_left_to_do(diamond):
    for round_number in range(3):
        diamond.execute("insert into orders values (%s, 'north', 5)", [10 + round_number])
        diamond.execute("update orders set region = 'west' where order_id = %s", [round_number])
        assert set(together(diamond, "sums").values()) == {"DIFFERENTIAL"}
        assert [behind(diamond, name) for name in ("counts", "sums", "pair")] == [None] * 3
    assert set(together(diamond, "pair").values()) == {"NO_DATA"}
    # What they have all seen is removed, and nothing else.
    diamond.execute("insert into orders values (20, 'east', 5)")
    diamond.execute("select tide.stream_clean()")
    assert set(together(diamond, "pair").values()) == {"DIFFERENTIAL"}
    diamond.execute("select tide.stream_clean()")
    [(left,)] = diamond.execute("select sum(pending_rows)::int from tide.change_buffer_sizes()").fetchall()
    assert left == 0


def test_a_reader_of_it_that_is_refreshed_alone_gets_each_change_once(diamond):
    create(diamond, "total", "select sum(orders) as orders from counts", refresh_mode="DIFFERENTIAL")
    analyse_and_keep(diamond, "total")
    refresh(diamond, "total")
    for number in range(3):
        diamond.execute("insert into orders values (%s, 'north', 5)", [30 + number])
        together(diamond, "pair")
        assert refresh(diamond, "total")[0] == "DIFFERENTIAL"


def test_a_refresh_by_hand_is_of_all_and_loses_nothing_that_its_transaction_changes_after_it(diamond):
    for number in (40, 50):
        diamond.execute("begin isolation level repeatable read")
        # A transaction that has its id before its snapshot is not in the list of its own snapshot.
        diamond.execute("lock table orders in access exclusive mode")
        diamond.execute("insert into orders values (%s, 'north', 1)", [number])
        diamond.execute("select tide.refresh_stream_table('sums')")
        diamond.execute("insert into orders values (%s, 'south', 1)", [number + 1])
        diamond.execute("commit")
        [(shown,)] = diamond.execute("select sum(orders)::int from pair").fetchall()
        [(there,)] = diamond.execute("select count(*)::int from orders").fetchall()
        assert shown == there - 1
        together(diamond, "pair")


def test_what_a_trigger_of_a_user_changes_in_a_source_after_it_was_read_is_found(diamond):
    diamond.execute("""
        create function again() returns trigger language plpgsql as
            $$ begin insert into orders values (1000 + (random() * 1e8)::int, 'deep', 1); return null; end $$;
        create constraint trigger again after insert or update on pair deferrable initially deferred
            for each row when (pg_trigger_depth() = 0 and new.region <> 'deep') execute function again();
    """)
    query = "select order_id from orders union all select orders::int from counts"
    create(diamond, "seen", query, refresh_mode="DIFFERENTIAL")
    assert analyse_and_keep(diamond, "seen") is None
    together(diamond, "seen")
    diamond.execute("insert into orders values (60, 'north', 5)")
    together(diamond, "seen", judge=False)
    together(diamond, "seen")


@pytest.mark.parametrize("change", ["select tide.alter_stream_table(%s, status => 'SUSPENDED')",
                                    "select tide.alter_stream_table(%s, tier => 'frozen')",
                                    "select tide.drop_stream_table(%s)"])  # fmt: skip
def test_the_others_go_on_without_one_that_is_not_refreshed(connection, change):
    for name, query in (("first", COUNT), ("second", SUM), ("third", "select max(amount) as most from orders")):
        create(connection, name, query, refresh_group="books")
    names = [pipeline(connection, name) for name in ("first", "second", "third")]
    assert config(connection, "first")["members"] == names
    assert config(connection, "third") == {"part_of": names[0]}
    connection.execute(change, ["first"])  # type: ignore[arg-type]
    assert config(connection, "second")["members"] == names[1:]
    assert config(connection, "third") == {"part_of": names[1]}
    assert list(together(connection, "third")) == ["second", "third"]
    if "drop" not in change:
        assert members(connection, "first") == names[:1]
        connection.execute("select tide.alter_stream_table('first', tier => 'hot', status => 'ACTIVE')")
        assert config(connection, "second") == {"part_of": names[0]}


def test_a_group_is_due_when_the_first_of_it_is(connection):
    create(connection, "below", COUNT)
    create(connection, "first", SUM, schedule="1h", tier="cold", refresh_group="books")
    create(connection, "second", "select max(amount) as most from orders", schedule="5s", refresh_group="books")
    create(connection, "third", "select sum(orders) as n from below", refresh_group="books")
    create(connection, "fourth", "select n from third", refresh_group="books")
    connection.execute("set time zone 'Europe/Berlin'")
    create(connection, "fifth", "select min(amount) as least from orders", schedule="@daily", refresh_group="books")
    below, leader = pipeline(connection, "below"), pipeline(connection, "first")
    found = config(connection, "first")
    assert sorted(found.pop("schedules"), key=str) == [  # type: ignore[call-overload]
        {"cron": "@daily", "time_zone": "Europe/Berlin"},
        {"poll_interval_ms": 1000, "follows": [below]},
        {"poll_interval_ms": 36_000_000},
        {"poll_interval_ms": 5000},
    ]
    assert found == {
        "members": [pipeline(connection, each) for each in ("first", "second", "fifth", "third", "fourth")]
    }
    # One that follows any of them follows all, whichever leads.
    create(connection, "after", "select n from fourth")
    follows = config(connection, "after")["follows"]
    assert {leader, pipeline(connection, "second"), below} <= set(follows)  # type: ignore[call-overload]
    # Those that it waits for are refreshed first, but not by itself.
    ready = "select tide.stream_ready(array[%s, %s])"
    refresh(connection, "below")
    together(connection, "first")
    assert connection.execute(ready, [leader, below]).fetchall() == []
    connection.execute("insert into orders values (70, 'north', 1)")
    assert {row[0] for row in connection.execute(ready, [leader, below]).fetchall()} == {leader, below}


def test_it_shows_who_is_refreshed_with_whom_and_is_exported(diamond):
    shown = "select name, refreshed_with from tide.stream_tables()"
    names = ["public.counts", "public.pair", "public.sums"]
    assert dict(diamond.execute(shown).fetchall()) == {name: [o for o in names if o != name] for name in names}
    found = diamond.execute(
        "select member_name, is_convergence, led_by from pgtrickle.diamond_groups() order by 1"
    ).fetchall()
    assert found == [
        ("counts", False, "public.counts"),
        ("pair", True, "public.counts"),
        ("sums", False, "public.counts"),
    ]
    diamond.execute("select tide.alter_stream_table('pair', refresh_group => 'books')")
    [(script,)] = diamond.execute("select tide.export_definition('pair')").fetchall()
    assert "refresh_group => 'books'" in script


def test_a_frontier_shows_what_its_snapshot_shows_and_what_the_transaction_itself_has_done(connection):
    """Compared with PostgreSQL's own judgement, id by id; and what is cleaned with both of two frontiers."""
    chance = random.Random(1)
    visible = """select array_agg(pg_visible_in_snapshot(x::text::xid8, %s::pg_snapshot) order by x)
                   from generate_series(1, 60) x"""

    def shown(snapshot: str) -> list[bool]:
        return list(connection.execute(visible, [snapshot]).fetchall()[0][0])  # type: ignore[arg-type]

    def snapshot() -> str:
        low = chance.randint(3, 40)
        high = low + chance.randint(0, 15)
        running = sorted(chance.sample(range(low, high), chance.randint(0, high - low)))
        return f"{low}:{high}:{','.join(map(str, running))}"

    for _ in range(200):
        seen = snapshot()
        own = chance.randint(1, 58)
        for finished in (True, False):
            [(frontier,)] = connection.execute(
                "select tide.stream_frontier_of(%s, %s::text::xid8, %s)::text", [seen, str(own), finished]
            ).fetchall()
            expected = shown(seen)
            expected[own - 1] = finished
            assert shown(frontier) == expected, (seen, own, finished)
        other = snapshot()
        [(both,)] = connection.execute("select tide.snapshot_union(%s, %s)::text", [seen, other]).fetchall()
        assert shown(both) == [a or b for a, b in zip(shown(seen), shown(other), strict=True)]
