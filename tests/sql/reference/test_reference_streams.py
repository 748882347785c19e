"""The patterns of stream tables that users of earlier systems know: the same calls and shapes, on tables of our own.
Each stream table equals its query after a refresh, also after changes."""

import psycopg
import pytest

from tests.sql.streams.maintained import hand_over
from tests.sql.streams.streams import assert_equal, refresh

LAYERS = """
create table readings (
reading_id bigserial primary key,
sensor_id int not null,
kind text not null,
body jsonb,
received_at timestamptz not null default now()
);
SELECT pgtrickle.create_stream_table(
'readings_clean',
$$SELECT DISTINCT ON (reading_id)
reading_id,
sensor_id,
kind,
(body->>'celsius')::numeric AS celsius,
received_at
FROM readings
WHERE kind IN ('probe', 'manual')$$,
schedule => '5s',
refresh_mode => 'DIFFERENTIAL'
);
SELECT pgtrickle.create_stream_table(
'sensor_summary',
$$SELECT sensor_id,
COUNT(*) AS readings,
SUM(celsius) AS total,
AVG(celsius) AS average
FROM readings_clean
WHERE kind = 'probe'
GROUP BY sensor_id$$,
schedule => 'calculated',
refresh_mode => 'DIFFERENTIAL'
);
"""

PROJECTIONS = """
create table facts (
fact_id bigserial primary key,
entity_id uuid not null,
fact_type text not null,
body jsonb not null,
created_at timestamptz not null default now()
);
SELECT pgtrickle.create_stream_table(
'entity_state',
$$SELECT DISTINCT ON (entity_id)
entity_id,
fact_type AS last_fact,
body AS current_state,
created_at AS last_updated
FROM facts
ORDER BY entity_id, created_at DESC$$,
schedule => '2s',
refresh_mode => 'DIFFERENTIAL'
);
SELECT pgtrickle.create_stream_table(
'hourly_facts',
$$SELECT date_trunc('hour', created_at) AS hour,
fact_type,
COUNT(*) AS facts
FROM facts
GROUP BY 1, 2$$,
schedule => '10s',
refresh_mode => 'DIFFERENTIAL',
append_only => true
);
"""

DIMENSIONS = """
create table clients (
client_id int primary key,
name text not null,
email text,
tier text default 'standard'
);
create table sales (
id serial primary key,
client_id int not null,
region text not null,
product_id int not null,
amount numeric(10,2) not null,
sold_on date not null default current_date
);
create table client_history (
client_id int not null,
name text not null,
valid_from timestamptz not null,
valid_to timestamptz,
primary key (client_id, valid_from)
);
SELECT pgtrickle.create_stream_table(
'client_360',
$$SELECT c.client_id,
c.name,
c.email,
c.tier,
COUNT(s.id) AS total_sales,
COALESCE(SUM(s.amount), 0) AS lifetime_value
FROM clients c
LEFT JOIN sales s ON s.client_id = c.client_id
GROUP BY c.client_id, c.name, c.email, c.tier$$,
schedule => '30s',
refresh_mode => 'DIFFERENTIAL'
);
SELECT pgtrickle.create_stream_table(
'clients_now',
$$SELECT client_id, name, valid_from
FROM client_history
WHERE valid_to IS NULL$$,
schedule => '10s',
refresh_mode => 'DIFFERENTIAL'
);
"""

FAN_OUT = """
SELECT pgtrickle.create_stream_table('per_day',
'SELECT sold_on, SUM(amount) AS total, COUNT(*) AS sales
FROM sales GROUP BY sold_on',
schedule => '5s', refresh_mode => 'DIFFERENTIAL');
SELECT pgtrickle.create_stream_table('per_region',
'SELECT region, SUM(amount) AS total, COUNT(*) AS cnt
FROM sales GROUP BY region',
schedule => '5s', refresh_mode => 'DIFFERENTIAL');
SELECT pgtrickle.create_stream_table('per_client',
'SELECT client_id, SUM(amount) AS lifetime_value, COUNT(*) AS sales
FROM sales GROUP BY client_id',
schedule => '10s', refresh_mode => 'DIFFERENTIAL');
"""

DASHBOARD = """
SELECT pgtrickle.create_stream_table(
'sales_monitor',
$$SELECT
date_trunc('minute', sold_on) AS minute,
region,
COUNT(*) AS sales,
SUM(amount) AS revenue
FROM sales
WHERE sold_on >= CURRENT_DATE
GROUP BY 1, 2$$,
schedule => '1s',
refresh_mode => 'DIFFERENTIAL'
);
"""

LIVE = """
SELECT pgtrickle.create_stream_table(
'live_sales',
$$SELECT region, COUNT(*) AS cnt, SUM(amount) AS total
FROM sales GROUP BY region$$,
schedule => 'IMMEDIATE',
refresh_mode => 'DIFFERENTIAL'
);
"""

TIERS = """
SELECT pgtrickle.create_stream_table('live', 'SELECT COUNT(*) AS sales FROM sales');
SELECT pgtrickle.alter_stream_table('live', tier => 'hot');
SELECT pgtrickle.create_stream_table('report', 'SELECT region FROM sales GROUP BY region',
schedule => '1m');
SELECT pgtrickle.alter_stream_table('report', tier => 'warm');
SELECT pgtrickle.create_stream_table('analytics', 'SELECT MAX(amount) AS largest FROM sales',
schedule => '5m');
SELECT pgtrickle.alter_stream_table('analytics', tier => 'cold');
SELECT pgtrickle.alter_stream_table('live', tier => 'frozen');
"""

EFFICIENCY = """
SELECT pgt_name, refresh_mode, diff_speedup, avg_change_ratio
FROM pgtrickle.refresh_efficiency()
ORDER BY total_refreshes DESC;
"""

ADVICE = """
SELECT pgt_name, current_mode, recommended_mode, reason
FROM pgtrickle.recommend_refresh_mode()
WHERE recommended_mode != 'KEEP';
"""

FAILING = """
SELECT pgt_name, status, last_error_message
FROM pgtrickle.stream_tables_info
WHERE status IN ('ERROR', 'SUSPENDED');
"""

EXPORT = """
SELECT pgtrickle.export_definition(pgt_schema || '.' || pgt_name)
FROM pgtrickle.pgt_stream_tables;
"""

CHANGES = {
    "readings": """
        insert into readings (sensor_id, kind, body)
        values (1, 'probe', '{"celsius": 20.5}'), (1, 'probe', '{"celsius": 21}'), (2, 'probe', '{}'),
               (3, 'other', '{"celsius": 1}');
        update readings set kind = 'manual' where reading_id = 2; delete from readings where reading_id = 1""",
    "facts": """
        insert into facts (entity_id, fact_type, body)
        select ('00000000-0000-0000-0000-00000000000' || n % 3)::uuid, 'f' || n % 2, jsonb_build_object('n', n)
          from generate_series(1, 20) n;
        update facts set created_at = created_at + interval '3 hours' where fact_id % 5 = 0""",
    "sales": """
        insert into clients values (1, 'a', null, 'standard'), (2, 'b', 'b@example.com', 'gold')
            on conflict do nothing;
        insert into sales (client_id, region, product_id, amount)
        select n % 3, 'r' || n % 2, n, n from generate_series(1, 30) n;
        update sales set sold_on = sold_on - 1, region = 'west' where id % 7 = 0; delete from sales where id % 5 = 0;
        insert into client_history values (1, 'a', '2026-01-01', '2026-02-01'), (1, 'a2', '2026-02-01', null)
            on conflict do nothing""",
}


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("script", "names", "changed"),
    [
        (LAYERS, ["readings_clean", "sensor_summary"], "readings"),
        (PROJECTIONS, ["entity_state", "hourly_facts"], "facts"),
        (DIMENSIONS, ["client_360", "clients_now"], "sales"),
        (DIMENSIONS + FAN_OUT, ["per_day", "per_region", "per_client"], "sales"),
        (DIMENSIONS + DASHBOARD, ["sales_monitor"], "sales"),
        (DIMENSIONS + TIERS, ["live", "report", "analytics"], "sales"),
    ],
    ids=["layers", "projections", "dimensions", "fan-out", "dashboard", "tiers"],
)
def test_the_patterns_run_and_each_table_equals_its_query(db, script, names, changed):
    db.execute(script)
    for _ in range(3):
        for name in names:
            refresh(db, name)
        db.execute(CHANGES[changed])
    for name in names:
        refresh(db, name)
        assert_equal(db, name)
        assert db.execute(f"select count(*) > 0 from {name}").fetchone() == (True,), name


def test_what_is_immediate_equals_its_query_without_a_refresh(db):
    db.execute(DIMENSIONS + LIVE)
    assert db.execute(
        "select schedule, refresh_mode from pgtrickle.pgt_status() where name = 'public.live_sales'"
    ).fetchall() == [("IMMEDIATE", "IMMEDIATE")]
    hand_over(db, "live_sales")
    for _ in range(3):
        db.execute(CHANGES["sales"])
        assert_equal(db, "live_sales")
    assert db.execute("select count(*) > 0 from live_sales").fetchone() == (True,)


def test_schedules_modes_and_tiers_are_those_of_the_calls(db):
    db.execute(LAYERS + DIMENSIONS + TIERS)
    found = db.execute("select pgt_name, schedule, refresh_mode, tier from pgtrickle.pgt_stream_tables order by pgt_id")
    assert found.fetchall() == [
        ("readings_clean", "5s", "DIFFERENTIAL", "hot"),
        ("sensor_summary", "calculated", "DIFFERENTIAL", "hot"),
        ("client_360", "30s", "DIFFERENTIAL", "hot"),
        ("clients_now", "10s", "DIFFERENTIAL", "hot"),
        ("live", "1s", "AUTO", "frozen"),
        ("report", "1m", "AUTO", "warm"),
        ("analytics", "5m", "AUTO", "cold"),
    ]
    db.execute("select pgtrickle.create_stream_table('public.agg', 'select 1 as one', schedule_seconds => 5)")
    assert db.execute("select schedule from pgtrickle.pgt_status() where name = 'public.agg'").fetchone() == ("5s",)


def test_names_are_looked_up_as_in_the_session_of_the_caller(db):
    db.execute("create schema shop; create table shop.goods (id int); set search_path = shop")
    db.execute("select pgtrickle.create_stream_table('ids', 'select id from goods')")
    assert db.execute("select pgt_schema, pgt_name from pgtrickle.pgt_stream_tables").fetchall() == [("shop", "ids")]
    refresh(db, "ids")
    assert_equal(db, "ids")


def test_the_checklist_of_monitoring_runs(db):
    db.execute(DIMENSIONS + FAN_OUT)
    refresh(db, "per_day")
    assert db.execute(EFFICIENCY).fetchall()[0] == ("per_day", "DIFFERENTIAL", None, None)
    assert db.execute(ADVICE).fetchall() == []
    assert db.execute(FAILING).fetchall() == []
    db.execute("select tide.stream_failed('streams.public.per_day', 'no')")
    assert db.execute(FAILING).fetchall() == [("per_day", "ERROR", "no")]
    assert len(db.execute(EXPORT).fetchall()) == 5


def test_one_is_suspended_resumed_refreshed_and_dropped(db):
    db.execute("select pgtrickle.create_stream_table('one', 'select 1 as one', initialize => false)")
    status = "select status from pgtrickle.pgt_status()"
    assert db.execute(status).fetchone() == ("SUSPENDED",)
    db.execute("select pgtrickle.resume_stream_table('one')")
    assert db.execute(status).fetchone() == ("INITIALIZING",)
    db.execute("begin isolation level repeatable read; select pgtrickle.refresh_stream_table('one'); commit")
    assert db.execute("select * from one").fetchall() == [(1,)]
    db.execute("select pgtrickle.drop_stream_table('one')")
    assert db.execute(status).fetchall() == []
    db.execute("select pgtrickle.drop_stream_table('one', if_exists => true)")


@pytest.mark.parametrize(("option", "value"), [("cdc_mode", "wal")])
def test_what_is_not_built_is_refused(db, option, value):
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=value):
        db.execute(f"select pgtrickle.create_stream_table('one', 'select 1 as one', {option} => %s)", [value])
    db.execute("select pgtrickle.create_stream_table('one', 'select 1 as one', append_only => true)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=value):
        db.execute(f"select pgtrickle.alter_stream_table('one', {option} => %s)", [value])
    db.execute("select pgtrickle.alter_stream_table('one', diamond_consistency => 'none', cdc_mode => 'trigger')")
