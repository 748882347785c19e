"""What is known of a query: whether changes of its sources tell all, and what it must not be."""

import psycopg
import pytest

from tests.sql.streams.streams import behind, create, refresh

ALWAYS = {
    "select region, now() as at from orders": "it calls now(), whose result may change at any time",
    "select region, random() as chance from orders": "it calls random(), whose result may change at any time",
    "select region, current_timestamp as at from orders": "it reads the time, a user or a schema of the session",
    "select region, localtime as at from orders": "it reads the time, a user or a schema of the session",
    "select region, current_user::text as who from orders": "it reads the time, a user or a schema of the session",
    "select region, age(now()) as age from orders": "it calls age(), whose result may change at any time",
    "select region, own(1) as own from orders": "it calls own(), whose result may change at any time",
    "select region, tableoid::text as part from orders": "it reads system columns",
    "select region from orders tablesample bernoulli (50)": "it takes a random sample",
    "select count(*) as tables from pg_class": "changes of pg_class cannot be captured",
    "select region from kept": "changes of public.kept cannot be captured",
    "select region, at from over_now": "it calls now(), whose result may change at any time",
    "select id from parent": "changes of public.parent cannot be captured",
}
CAPTURED = [
    "select region, to_char(amount, '999.9') as shown, amount::text as text from orders",
    "select date_trunc('day', at) as day, count(*) as n from events group by 1",
    "select at + interval '1 day' as later, at::date as day, extract(hour from at) as hour from events",
    "select region, jsonb_agg(amount order by order_id) as a, string_agg(region, ',') as r from orders group by region",
    "select region, rank() over (order by amount, order_id) as place from orders",
    "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) select n, o.region from t, orders o",
    "select region from over_orders",
    "select region from orders union select 'x' union all select null",
    "select distinct on (region) region, amount from orders order by region, order_id;",
    "select o.region, l.amount from orders o, lateral (select amount from orders p where p.region < o.region) l -- all",
    "select region, steady(1) as own from orders",
]


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute("""
            create table orders (order_id int primary key, region text, amount numeric);
            create table events (at timestamptz, name text);
            insert into orders values (1, 'north', 10), (2, 'south', 20);
            insert into events values ('2026-03-01 23:30+00', 'a');
            create materialized view kept as select region from orders;
            create view over_orders as select region from orders where amount > 1;
            create view over_now as select region, now() as at from orders;
            create table parent (id int);
            create table child () inherits (parent);
            create function own(n int) returns int stable language sql as 'select n';
            create function steady(n int) returns int immutable language sql as 'select n';
        """)
        yield connection


@pytest.mark.parametrize("query", ALWAYS)
def test_what_does_not_depend_on_its_sources_alone_is_computed_each_time(connection, query):
    create(connection, "found", query)
    [(reason,)] = connection.execute("select always_reason from tide.stream").fetchall()
    assert reason == ALWAYS[query]


@pytest.mark.parametrize("query", CAPTURED)
def test_what_depends_on_its_sources_alone_is_computed_when_they_change(connection, query):
    create(connection, "found", query)
    refresh(connection, "found")
    assert behind(connection, "found") is None
    connection.execute("insert into orders values (3, 'west', 30)")
    connection.execute("insert into events values (now(), 'b')")
    assert refresh(connection, "found")[0] == "FULL"


def test_a_day_has_a_result_of_its_own(connection):
    create(connection, "today", "select name, current_date as day from events where at::date = current_date")
    refresh(connection, "today")
    assert behind(connection, "today") is None
    connection.execute("update tide.stream_state set data_timestamp = data_timestamp - interval '1 day'")
    assert behind(connection, "today") == "a new day began"


def test_the_settings_of_the_creation_hold_in_a_refresh(connection):
    connection.execute("set timezone = 'Asia/Tokyo'")
    connection.execute("set datestyle = 'German'")
    create(connection, "days", "select at::text as shown from events")
    connection.execute("set timezone = 'UTC'")
    connection.execute("set datestyle = 'ISO'")
    create_number = connection.execute("select pipeline from tide.stream").fetchone()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        connection.execute("select tide.stream_refresh(%s)", create_number)
    assert connection.execute("select shown from days").fetchall() == [("02.03.2026 08:30:00 JST",)]


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("select '{}'::json as doc", 'column "doc" of stream table public.found is of type json'),
        ("select point(1, 2) as place", 'column "place" of stream table public.found is of type point'),
        ("select 1 as __n", 'column "__n" of stream table public.found begins with "__"'),
        ("select 1 as one) one; drop table orders; select * from (select 1", "is more than one statement"),
        ("delete from orders returning 1", "syntax error"),
        ("select * from missing", "does not exist"),
        (" ", "is empty"),
    ],
)
def test_what_cannot_be_a_stream_table_is_refused_and_leaves_nothing(connection, query, refusal):
    with pytest.raises(psycopg.Error, match=refusal):
        create(connection, "found", query)
    assert connection.execute("select count(*) from tide.stream").fetchone() == (0,)
    assert connection.execute("select to_regclass('found'), to_regclass('orders') is null").fetchone() == (None, False)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "often"},
        {"schedule": "50ms"},
        {"schedule": "5 parsecs"},
        {"tier": "tepid"},
        {"refresh_mode": "SOME"},
    ],
)
def test_an_option_that_there_is_not_is_named(connection, options):
    [value] = options.values()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"'{value}'"):
        create(connection, "found", "select region from orders", **options)


@pytest.mark.parametrize(
    ("schedule", "tier", "interval_ms"),
    [
        ("5s", "hot", 5_000),
        ("1m30s", "warm", 180_000),
        ("250ms", "cold", 2_500),
        ("1D", "hot", 86_400_000),
    ],
)
def test_a_schedule_and_a_tier_are_the_timer_of_its_pipeline(connection, schedule, tier, interval_ms):
    create(connection, "found", "select region from orders", schedule=schedule, tier=tier)
    config = {"poll_interval_ms": interval_ms} | ({} if tier == "hot" else {"tier": tier})
    assert connection.execute("select config from tide.pipeline").fetchone() == (config,)


def test_a_superuser_is_told_who_creates_them(database):
    with (
        database.admin() as admin,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="which is a superuser") as told,
    ):
        admin.execute("select tide.create_stream_table('found', 'select 1 as one')")
    assert "set role" in str(told.value.diag.message_hint)
