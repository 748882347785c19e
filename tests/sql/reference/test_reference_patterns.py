"""Patterns 1 to 6 of the users of pg_trickle, with a fleet: each block runs as printed, and its tables show what the
text around it says, once the time of the schedule has passed. Where it contradicts itself, a test says what holds."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from relay.local.servers import EmbeddedRedis
from tests.docs.stream_pages import StreamSite, stream_site
from tests.services.postgres import PostgresServer
from tests.sql.reference import patterns
from tests.sql.streams.streams import assert_equal

pytestmark = [pytest.mark.xdist_group("stream-pages"), pytest.mark.timeout(300)]
A, B = ("00000000-0000-0000-0000-00000000000" + end for end in "ab")
SCHEDULED = (
    "events_cleaned", "user_purchase_summary", "aggregate_state", "hourly_event_counts", "daily_totals", "by_region",
    "by_product", "top_customers", "customers_current", "order_monitor",
)  # fmt: skip
FIRST = f"""
    insert into raw_events (user_id, event_type, payload) values
        (1, 'purchase', '{{"amount": "10"}}'), (1, 'purchase', '{{"amount": 20}}'), (1, 'refund', '{{"amount": 5}}'),
        (2, 'view', '{{}}');
    insert into events (aggregate_id, event_type, payload, created_at) values
        ('{A}', 'placed', '{{"n": 1}}', '2026-03-01 08:10Z'), ('{B}', 'placed', '{{"n": 2}}', '2026-03-01 08:20Z');
    insert into orders (customer_id, region, product_id, amount) values (1, 'eu', 1, 10), (1, 'us', 2, 5);
    insert into orders (customer_id, region, product_id, amount, order_date) values (2, 'eu', 1, 7, current_date - 1);
    insert into customers (customer_id, name) values (1, 'Ada'), (2, 'Bo'), (3, 'Cy');
    insert into customer_history values (1, 'Ada', 'standard', '2026-01-01', null);
"""
SECOND = f"""
    insert into raw_events (user_id, event_type, payload) values (1, 'purchase', '{{"amount": 30}}');
    update raw_events set event_type = 'purchase' where event_type = 'refund';
    insert into events (aggregate_id, event_type, payload, created_at) values
        ('{A}', 'paid', '{{"n": 3}}', '2026-03-01 09:30Z'), ('{B}', 'noted', '{{"n": 4}}', '2026-03-01 08:05Z');
    insert into orders (customer_id, region, product_id, amount) values (2, 'us', 2, 3);
    update customers set name = 'Ada L.', tier = 'gold' where customer_id = 1;
    update customer_history set valid_to = '2026-02-01' where customer_id = 1;
    insert into customer_history values (1, 'Ada L.', 'gold', '2026-02-01', null);
"""


@pytest.fixture(scope="module")
def site(
    _postgres18: PostgresServer, _redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StreamSite]:
    """Every pattern in one database, with the first rows."""
    with stream_site(_postgres18, _redis, tmp_path_factory.mktemp("patterns") / "fleet") as made:
        with made.database.connect() as db:
            made_of = (patterns.LAYERS, patterns.EVENT_LOG, patterns.FAN_OUT, patterns.DIMENSIONS, patterns.DASHBOARD)
            # One transaction: they are filled with the first rows.
            db.execute("".join((*made_of, FIRST)))
            wait(db, *SCHEDULED)
            db.execute(SECOND)
            # Its schedule of 30 s is shortened by asking; all others are refreshed by their schedules.
            wait(db, *SCHEDULED)
            db.execute("select pgtrickle.refresh_stream_table('customer_360')")
            wait(db, "customer_360")
        yield made


@pytest.fixture
def db(site: StreamSite) -> Iterator["psycopg.Connection[Any]"]:
    with site.database.connect() as connection:
        yield connection


def wait(db: "psycopg.Connection[Any]", *names: str) -> None:
    for name in names:
        db.execute("select pgtrickle.wait_for_stream_table(%s)", [name])


def rows(db: "psycopg.Connection[Any]", statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()


def test_each_equals_its_query_and_follows_changes(db: "psycopg.Connection[Any]") -> None:
    for name in (*SCHEDULED, "customer_360"):
        assert_equal(db, name)
    modes = "select distinct effective_mode, status from pgtrickle.pgt_stream_tables where pgt_name = any (%s)"
    assert db.execute(modes, [list(SCHEDULED)]).fetchall() == [("DIFFERENTIAL", "ACTIVE")]
    last = """select distinct on (s.pgt_name) s.pgt_name, h.action from pgtrickle.pgt_stream_tables s
               cross join lateral pgtrickle.get_refresh_history(s.pgt_name, 1) h where s.pgt_name = any (%s)"""
    assert {action for _, action in db.execute(last, [list(SCHEDULED)])} == {"DIFFERENTIAL"}


def test_1_raw_rows_are_cleaned_and_summed_up(db: "psycopg.Connection[Any]") -> None:
    assert rows(db, "select count(*) from events_cleaned") == [(4,)]
    assert rows(db, "select user_id, total_purchases, total_spent, round(avg_order, 2) from user_purchase_summary") == [
        (1, 4, 65, 16.25)
    ]


def test_2_projections_of_a_log(db: "psycopg.Connection[Any]") -> None:
    state = "select last_event, current_state ->> 'n' from aggregate_state order by aggregate_id"
    assert rows(db, state) == [("paid", "3"), ("placed", "2")], "what came late is not the last event"
    hour = "to_char(hour at time zone 'UTC', 'HH24')"
    counts = f"select {hour}, event_type, event_count from hourly_event_counts order by 1, 2"
    assert rows(db, counts) == [("08", "noted", 1), ("08", "placed", 2), ("09", "paid", 1)]


def test_3_dimensions_show_the_current_state(db: "psycopg.Connection[Any]") -> None:
    assert rows(db, "select name, tier, total_orders, lifetime_value from customer_360 order by customer_id") == [
        ("Ada L.", "gold", 2, 15), ("Bo", "standard", 2, 10), ("Cy", "standard", 0, 0)]  # fmt: skip
    assert rows(db, "select customer_id, name, tier from customers_current") == [(1, "Ada L.", "gold")]


def test_4_all_of_a_source_share_one_buffer(db: "psycopg.Connection[Any]") -> None:
    shared = """select count(*), count(distinct source_oid), count(distinct buffer_bytes)
                  from pgtrickle.change_buffer_sizes() where source_table = 'public.orders'"""
    [(readers, sources, buffers)] = rows(db, shared)
    assert readers >= 6 and (sources, buffers) == (1, 1)
    assert rows(db, "select region, total, cnt from by_region order by region") == [("eu", 17, 2), ("us", 8, 2)]
    assert rows(db, "select customer_id, lifetime_value from top_customers order by 1") == [(1, 15), (2, 10)]


def test_5_a_dashboard_of_today(db: "psycopg.Connection[Any]") -> None:
    """`order_date` is a date, so its minute is the beginning of the day."""
    assert rows(db, "select region, orders, revenue from order_monitor order by region") == [
        ("eu", 1, 10),
        ("us", 2, 8),
    ]
    assert rows(db, "select distinct minute = current_date from order_monitor") == [(True,)]


def test_5_a_live_counter_changes_within_the_transaction(db: "psycopg.Connection[Any]") -> None:
    db.execute(patterns.LIVE_COUNTER)
    wait(db, "live_counter")
    with db.transaction(force_rollback=True):
        db.execute("insert into orders (customer_id, region, product_id, amount) values (9, 'asia', 1, 4)")
        assert rows(db, "select cnt, total from live_counter where region = 'asia'") == [(1, 4)]
    db.execute("select pgtrickle.drop_stream_table('live_counter')")


def test_6_tiers_multiply_schedules(db: "psycopg.Connection[Any]") -> None:
    db.execute(patterns.TIERS)
    multiplied = """select s.pgt_name, s.tier, p.enabled, (p.config ->> 'poll_interval_ms')::int / 1000
                      from pgtrickle.pgt_stream_tables s
                      join tide.pipeline p on p.name = format('streams.%s.%s', s.pgt_schema, s.pgt_name)
                     where s.tier <> 'hot' or s.pgt_name = 'live_metrics' order by s.pgt_id"""
    assert rows(db, multiplied) == [
        ("live_metrics", "hot", True, 1),
        ("hourly_report", "warm", True, 120),
        ("daily_analytics", "cold", True, 3000),
        ("audit_log_summary", "frozen", False, 1),
    ]
    wait(db, "live_metrics", "hourly_report", "daily_analytics")
    assert rows(db, "select l.n = h.n and h.n = d.n from live_metrics l, hourly_report h, daily_analytics d") == [
        (True,)
    ]
    assert rows(db, "table audit_log_summary") == [], "frozen: skipped"


def test_the_general_calls_answer(db: "psycopg.Connection[Any]") -> None:
    assert {row[0] for row in rows(db, patterns.RECOMMENDED)} >= set(SCHEDULED)


def test_a_snapshot_is_restored_and_brought_to_the_present(db: "psycopg.Connection[Any]") -> None:
    db.execute(patterns.ORDERS_AGG)
    wait(db, "orders_agg")
    db.execute(patterns.SNAPSHOT)
    db.execute("insert into orders (customer_id, region, product_id, amount) values (5, 'eu', 1, 1)")
    db.execute(patterns.RESTORE)
    wait(db, "orders_agg")
    assert_equal(db, "orders_agg")
    last = "select action, source_rows, rows_inserted from pgtrickle.get_refresh_history('orders_agg', 1)"
    assert rows(db, last) == [("DIFFERENTIAL", 1, 1)], "only changes after the snapshot are looked at"
    db.execute(patterns.DROP_SNAPSHOT)
    assert rows(db, "select * from pgtrickle.list_snapshots('orders_agg')") == []


def test_all_are_restored_from_snapshots_of_one_moment(db: "psycopg.Connection[Any]") -> None:
    """One statement takes them all, with one epoch in their names. Of one that was never filled there is none."""
    db.execute(patterns.SNAPSHOT_ALL)
    [(epoch,)] = rows(db, "select distinct substring(snapshot_table from '\\d+$') from pgtrickle.list_snapshots()")
    db.execute("update customers set name = 'Bob' where customer_id = 2")
    restored = patterns.RESTORE_ALL.replace("<epoch>", epoch).replace(
        "pgt_stream_tables;", "pgt_stream_tables WHERE tier <> 'frozen';"
    )
    db.execute(restored)
    for name in ("events_cleaned", "aggregate_state", "customers_current", "by_region"):
        wait(db, name)
        assert_equal(db, name)
