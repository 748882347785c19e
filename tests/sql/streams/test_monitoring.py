"""What the fleet did and how stream tables are, by the names that users of pg_trickle know."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.sql.security.logins import logins
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, refresh

SOURCES = """
    create table orders (order_id int primary key, region text, amount numeric);
    insert into orders select n, 'r' || n % 4, n from generate_series(1, 1000) n;
    analyze orders;
"""
SUMS = "select region, sum(amount) as amount from orders group by region"


@pytest.fixture
def connection(database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(SOURCES)
        yield connection


def rows(connection: Connection, call: str, *parameters: object) -> list[dict[str, Any]]:
    cursor = psycopg.Cursor(connection, row_factory=psycopg.rows.dict_row)  # type: ignore[arg-type]
    return cursor.execute(f"select * from {call}", parameters or None).fetchall()  # type: ignore[arg-type,return-value]


def history(
    connection: Connection, name: str, action: str, times: int, milliseconds: float, changed: int | None = None
) -> None:
    """Refreshes as workers write them down: one each second."""
    connection.execute(
        """insert into tide.stream_history (stream_id, started_at, action, strategy, source_rows, milliseconds)
           select (tide.find_stream(%s)).stream_id, '2026-01-01'::timestamptz + n * interval '1 second', %s, %s, %s, %s
             from generate_series(1, %s) n""",
        [name, action, "linear" if action == "DIFFERENTIAL" else "full", changed, milliseconds, times],
    )


@pytest.fixture(params=["tide", "pgtrickle"])
def schema(request):
    return request.param


def test_a_new_one_is_initializing_and_then_active_and_not_stale(connection, schema):
    create(connection, "sums", SUMS, schedule="5s")
    [found] = rows(connection, f"{schema}.pgt_status()")
    assert (found["name"], found["status"], found["is_populated"], found["schedule"]) == (
        "public.sums", "INITIALIZING", False, "5s",
    )  # fmt: skip
    refresh(connection, "sums")
    [found] = rows(connection, f"{schema}.pgt_status()")
    assert (found["status"], found["is_populated"], found["behind"], found["staleness"].total_seconds()) == (
        "ACTIVE", True, None, 0,
    )  # fmt: skip


def test_the_views_tell_the_same_and_more(connection, schema):
    create(connection, '"Odd Name"', SUMS, schedule="5s")
    refresh(connection, "Odd Name")
    connection.execute("update orders set amount = 0 where order_id = 1")
    [table] = rows(connection, f"{schema}.pgt_stream_tables")
    assert (table["pgt_schema"], table["pgt_name"], table["defining_query"]) == ("public", "Odd Name", SUMS)
    connection.execute("select tide.stream_failed(%s, 'division by zero')", ["streams.1"])
    [info] = rows(connection, f"{schema}.stream_tables_info where status in ('ERROR', 'SUSPENDED')")
    assert (info["last_error_message"], info["reason"], info["buffer_rows"]) == (
        "division by zero", "its sources changed", 2,
    )  # fmt: skip
    assert info["staleness"].total_seconds() > 0


def test_the_history_is_told_newest_first(connection, schema):
    create(connection, "sums", SUMS)
    create(connection, "others", SUMS)
    refresh(connection, "sums")
    refresh(connection, "others")
    connection.execute("update orders set amount = 0 where order_id = 1")
    refresh(connection, "sums")
    connection.execute("select tide.stream_failed('streams.public.sums', 'division by zero')")
    found = rows(connection, f"{schema}.refresh_history('sums')")
    assert [(row["action"], row["status"]) for row in found] == [
        ("FAILED", "FAILED"), ("FULL", "COMPLETED"), ("FULL", "COMPLETED"),
    ]  # fmt: skip
    assert found[0]["error_message"] == "division by zero"
    assert [row["rows_inserted"] for row in found[1:]] == [1, 4]
    assert found[1]["end_time"] > found[1]["start_time"]
    assert len(rows(connection, f"{schema}.refresh_history('public.sums', 2)")) == 2
    with pytest.raises(psycopg.errors.UndefinedObject):
        rows(connection, f"{schema}.refresh_history('nowhere')")


def test_percentiles_are_of_time_and_of_the_age_of_rows(connection, schema):
    create(connection, "sums", SUMS)
    create(connection, "others", SUMS)
    history(connection, "sums", "FULL", 100, 20)
    connection.execute("update tide.stream_history set milliseconds = 500 where refresh_id <= 2")
    history(connection, "others", "FULL", 1, 7)
    assert [row["pgt_name"] for row in rows(connection, f"{schema}.latency_percentiles()")] == ["others", "sums"]
    [found] = rows(connection, f"{schema}.latency_percentiles('sums')")
    assert (found["refreshes"], found["p50_ms"], found["p95_ms"]) == (100, 20, 20)
    assert 20 < found["p99_ms"] <= 500
    # A second from one to the next, and 20 ms until its rows were there.
    assert found["p50_staleness_seconds"] == pytest.approx(1.02)


def test_efficiency_compares_incremental_and_full_refreshes(connection, schema):
    create(connection, "sums", SUMS)
    create(connection, "rests", SUMS)
    history(connection, "sums", "FULL", 3, 120)
    history(connection, "sums", "DIFFERENTIAL", 10, 10, changed=50)
    rest, sums = rows(connection, f"{schema}.refresh_efficiency()")
    assert (sums["total_refreshes"], sums["diff_count"], sums["full_count"]) == (13, 10, 3)
    assert (sums["avg_diff_ms"], sums["avg_full_ms"], sums["diff_speedup"]) == (10, 120, "12.0x")
    assert sums["avg_change_ratio"] == pytest.approx(0.05)
    assert (rest["total_refreshes"], rest["diff_speedup"], rest["last_refresh_at"]) == (0, None, None)


def test_the_history_is_read_once_for_all_stream_tables(connection):
    for number in range(5):
        create(connection, f"sums{number}", SUMS)
        history(connection, f"sums{number}", "FULL", 2000, 1)
    connection.execute("analyze tide.stream_history")
    for call in ("refresh_efficiency()", "recommend_refresh_mode()", "latency_percentiles()"):
        before = rows_read(connection)
        rows(connection, f"tide.{call}")
        assert 0 < rows_read(connection) - before <= 10_000, call


def rows_read(connection: Connection) -> int:
    """Of the history, by all so far."""
    connection.execute("select pg_stat_force_next_flush()")
    [(number,)] = connection.execute("""
        select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables
         where relid = 'tide.stream_history'::regclass""").fetchall()
    return int(number)


@pytest.mark.parametrize(
    ("mode", "times", "diff", "full", "recommended", "confidence"),
    [
        ("FULL", 20, 10, 120, "DIFFERENTIAL", "high"),
        ("AUTO", 5, 10, 120, "DIFFERENTIAL", "medium"),
        ("DIFFERENTIAL", 20, 10, 120, "KEEP", "high"),
        ("DIFFERENTIAL", 20, 120, 10, "FULL", "high"),
        ("FULL", 20, 11, 10, "KEEP", "high"),
        ("FULL", 4, 10, 120, "KEEP", "low"),
    ],
)
def test_the_cheaper_mode_is_recommended(connection, schema, mode, times, diff, full, recommended, confidence):
    create(connection, "sums", SUMS, refresh_mode=mode)
    history(connection, "sums", "DIFFERENTIAL", times, diff, changed=300)
    history(connection, "sums", "FULL", times, full)
    [found] = rows(connection, f"{schema}.recommend_refresh_mode('sums')")
    assert (found["current_mode"], found["recommended_mode"], found["confidence"]) == (mode, recommended, confidence)
    assert (found["signals"]["diff_ms"], found["signals"]["full_ms"]) == (diff, full)
    assert rows(connection, f"{schema}.recommend_refresh_mode()") == [found]


@pytest.mark.parametrize(("changed", "recommended"), [(10, "DIFFERENTIAL"), (200, "KEEP"), (700, "FULL")])
def test_without_a_comparison_the_share_of_changed_rows_decides(connection, changed, recommended):
    create(connection, "sums", SUMS, refresh_mode="FULL" if recommended == "DIFFERENTIAL" else "DIFFERENTIAL")
    history(connection, "sums", "DIFFERENTIAL", 8, 10, changed=changed)
    [found] = rows(connection, "tide.recommend_refresh_mode('sums')")
    assert (found["recommended_mode"], found["confidence"]) == (recommended, "low")
    assert f"{changed / 10:.2f} %" in found["reason"]


def test_what_can_only_be_computed_as_a_whole_is_told(connection, schema):
    create(connection, "ages", "select order_id, now() as at from orders", refresh_mode="DIFFERENTIAL")
    [found] = rows(connection, f"{schema}.recommend_refresh_mode('ages')")
    assert (found["recommended_mode"], found["confidence"]) == ("FULL", "high")
    [found] = rows(connection, f"{schema}.explain_refresh_mode('ages')")
    assert (found["configured_mode"], found["effective_mode"]) == ("DIFFERENTIAL", "FULL")
    assert "now()" in found["downgrade_reason"]


def test_the_strategies_that_refreshes_used_are_counted(connection, schema):
    create(connection, "sums", SUMS)
    history(connection, "sums", "DIFFERENTIAL", 3, 1)
    history(connection, "sums", "FULL", 1, 1)
    connection.execute("select tide.stream_failed('streams.public.sums', 'no')")
    [found] = rows(connection, f"{schema}.explain_refresh_mode('public.sums')")
    assert found["strategies"] == {"linear": 3, "full": 1}


def test_each_set_of_sources_has_its_strategy_and_joins_their_missing_indexes(connection, schema):
    """As in query 13 of TPC-H, whose orders have no index on the customer."""
    connection.execute("""
        create table customers (c_custkey int primary key, c_name text);
        create table bought (o_orderkey int primary key, o_custkey int, o_comment text);
        insert into customers select n, 'name' from generate_series(1, 1500) n;
        insert into bought select n, n % 1000, 'note' from generate_series(1, 3000) n;
        analyze customers, bought;
    """)
    create(
        connection,
        "counts",
        """
        select c_custkey, count(o_orderkey) as bought
          from customers left join bought on c_custkey = o_custkey and o_comment not like '%special%'
         group by c_custkey""",
    )
    analyse_and_keep(connection, "counts")
    [found] = rows(connection, f"{schema}.explain_refresh_mode('counts')")
    changes = {tuple(each["sources"]): (each["strategy"], each["reason"]) for each in found["changes"]}
    assert changes == {
        ("public.customers",): ("keyed", "rows of the result are made of many rows of its sources"),
        ("public.bought",): ("keyed", "public.bought is read in a subquery or an outer join"),
        ("public.bought", "public.customers"): ("keyed", "public.bought is read in a subquery or an outer join"),
    }
    [found] = rows(connection, f"{schema}.recommend_refresh_mode('counts')")
    assert found["signals"]["missing_indexes"] == ["public.bought (o_custkey)"]
    assert found["reason"].endswith("no index begins with public.bought (o_custkey)")
    connection.execute("alter table bought rename column o_custkey to customer")
    [found] = rows(connection, f"{schema}.recommend_refresh_mode('counts')")
    assert found["signals"]["missing_indexes"] == ["public.bought (customer)"]
    connection.execute("create index on bought (customer, o_orderkey)")
    [found] = rows(connection, f"{schema}.recommend_refresh_mode('counts')")
    assert found["signals"]["missing_indexes"] == []
    connection.execute("select tide.alter_stream_table('counts', refresh_mode => 'FULL')")
    [found] = rows(connection, f"{schema}.explain_refresh_mode('counts')")
    assert found["changes"] == []


def test_changes_that_wait_are_counted_for_each_reader(connection, schema):
    create(connection, "sums", SUMS)
    create(connection, "regions", "select region from orders")
    refresh(connection, "sums")
    for number in range(3):
        connection.execute("update orders set amount = amount + 1 where order_id = %s", [number + 1])
    found = rows(connection, f"{schema}.change_buffer_sizes()")
    assert [(row["stream_table"], row["source_table"], row["cdc_mode"], row["pending_rows"]) for row in found] == [
        ("public.regions", "public.orders", "trigger", None),  # will be computed as a whole
        ("public.sums", "public.orders", "trigger", 6),  # an update is two rows
    ]
    assert found[1]["buffer_bytes"] > 0


def severities(connection: Connection, schema: str) -> dict[str, str]:
    return {row["check_name"]: row["severity"] for row in rows(connection, f"{schema}.health_check()")}


def test_health_is_fine_where_nothing_is_and_where_all_is_well(connection, schema):
    assert set(severities(connection, schema).values()) == {"OK"}
    create(connection, "sums", SUMS)
    assert {name for name, found in severities(connection, schema).items() if found != "OK"} == {
        "scheduler_running", "worker_running", "stale_tables",
    }  # fmt: skip
    connection.execute("""
        insert into tide.scheduler (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version)
        values (gen_random_uuid(), '', 1, now(), 'here', 1, '0')""")
    connection.execute("select tide.process_beat(gen_random_uuid(), 'workers', 'here', 1, '0', '{tide.streams}')")
    assert set(severities(connection, schema).values()) == {"OK"}


def test_what_is_wrong_has_a_check_of_its_own(connection, schema):
    create(connection, "sums", SUMS)
    create(connection, "regions", "select region from orders")
    refresh(connection, "sums")
    connection.execute("select tide.stream_failed('streams.public.regions', 'no')")
    connection.execute(
        "insert into tide.stream_change"
        " select 'orders'::regclass, (900000 + n)::text::xid8 from generate_series(1, 10001) n"
    )
    connection.execute("alter table orders disable trigger all")
    found = {row["check_name"]: row for row in rows(connection, f"{schema}.health_check()")}
    assert (found["error_tables"]["severity"], found["error_tables"]["detail"]) == ("ERROR", "public.regions: ERROR")
    assert (found["consecutive_errors"]["severity"], found["consecutive_errors"]["detail"]) == (
        "WARN",
        "public.regions: 1",
    )
    assert (found["needs_reinit"]["severity"], found["needs_reinit"]["detail"]) == (
        "WARN",
        "public.regions, public.sums",
    )
    assert (found["buffer_growth"]["severity"], found["buffer_growth"]["detail"]) == (
        "WARN",
        "public.sums: 10001 of public.orders",
    )


def test_what_each_reads_stands_beneath_it(connection, schema):
    connection.execute("create table customers (customer_id int primary key)")
    create(connection, "sums", SUMS)
    create(connection, "large", "select region from sums where amount > 10")
    create(
        connection,
        "report",
        "select l.region, s.amount, c.customer_id from large l join sums s using (region), customers c",
    )
    create(connection, "alone", "select customer_id from customers")
    found = rows(connection, f"{schema}.dependency_tree()")
    assert [row["tree_line"] for row in found] == [
        "public.alone",
        "└── public.customers [src]",
        "public.report",
        "├── public.customers [src]",
        "├── public.large",
        "│   └── public.sums",
        "│       └── public.orders [src]",
        "└── public.sums (see above)",
    ]
    assert [row["depth"] for row in found] == [0, 1, 0, 1, 1, 2, 3, 1]
    assert (found[2]["node"], found[2]["node_type"], found[2]["status"]) == (
        "public.report",
        "stream_table",
        "INITIALIZING",
    )
    assert (found[1]["node"], found[1]["node_type"], found[1]["status"]) == ("public.customers", "source_table", None)


def test_a_tree_of_many_diamonds_is_shown_once(connection):
    create(connection, "d0", SUMS)
    for level in range(12):
        create(connection, f"a{level}", f"select region from d{level}")
        create(connection, f"b{level}", f"select region from d{level}")
        create(connection, f"d{level + 1}", f"select a.region from a{level} a join b{level} b using (region)")
    assert len(rows(connection, "tide.dependency_tree()")) == 1 + 12 * 4 + 1


def test_a_reader_may_see_all_of_it(connection, database, schema):
    create(connection, "sums", SUMS)
    with logins(database) as login, psycopg.connect(login("grant_reader")[1], autocommit=True) as reader:
        for call in (
            "pgt_status()", "refresh_history('sums')", "latency_percentiles()", "change_buffer_sizes()",
            "health_check()", "refresh_efficiency()", "recommend_refresh_mode()", "explain_refresh_mode('sums')",
            "dependency_tree()", "export_definition('sums')", "pgt_stream_tables", "stream_tables_info",
        ):  # fmt: skip
            rows(reader, f"{schema}.{call}")


def test_after_how_many_failures_it_is_suspended_is_a_setting(connection):
    create(connection, "sums", SUMS)
    failed = "select tide.stream_failed('streams.public.sums', 'no')"
    connection.execute("select tide.setting_set('stream_max_consecutive_errors', '0')")
    assert [connection.execute(failed).fetchone() for _ in range(4)] == [(False,)] * 4
    connection.execute("select tide.setting_set('stream_max_consecutive_errors', '5')")
    assert connection.execute(failed).fetchone() == (True,)
    assert connection.execute("select status from tide.stream_tables()").fetchone() == ("SUSPENDED",)
