"""What schedule a stream table has, and when it is ready to be refreshed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.streams.streams import Connection, create, refresh
from tests.waiting import wait_until

ALL = "select order_id from orders"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("create table orders (order_id int primary key)")
        connection.execute("create table customers (customer_id int)")
        connection.execute("insert into orders values (1)")
        yield connection


def schedule(connection: Connection, name: str) -> str:
    row = connection.execute(
        "select schedule from tide.stream_tables() where name = 'public.' || %s", [name]
    ).fetchone()
    assert row
    return str(row[0])


def config(connection: Connection, name: str) -> dict[str, object]:
    row = connection.execute("select config from tide.pipeline where name = 'streams.public.' || %s", [name]).fetchone()
    assert row
    return dict(row[0])


def ready(connection: Connection, *names: str) -> list[str]:
    pipelines = [f"streams.public.{name}" for name in names]
    found = connection.execute("select tide.stream_ready(%s)", [pipelines]).fetchall()
    return sorted(row[0].removeprefix("streams.public.") for row in found)


def test_without_a_schedule_it_follows_the_stream_tables_that_it_reads_or_has_the_default(connection):
    create(connection, "base", ALL)
    create(connection, "total", "select count(*) as orders from base")
    assert (schedule(connection, "base"), schedule(connection, "total")) == ("1s", "calculated")
    connection.execute("select tide.setting_set('stream_default_schedule', '1m 30s')")
    create(connection, "other", ALL)
    assert schedule(connection, "other") == "1m 30s"
    assert config(connection, "other") == {"poll_interval_ms": 90_000}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'often' is no schedule"):
        connection.execute("select tide.setting_set('stream_default_schedule', 'often')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="NULL is no schedule"):
        connection.execute("select tide.setting_set('stream_default_schedule', 'calculated')")


def test_one_that_reads_no_stream_table_cannot_follow_any(connection):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="reads no other") as told:
        create(connection, "base", ALL, schedule="calculated")
    assert "Give a duration" in str(told.value.diag.message_hint)
    create(connection, "base", ALL)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="reads no other"):
        connection.execute("select tide.alter_stream_table('base', schedule => 'calculated')")


def test_the_least_pause_of_those_that_follow_is_a_setting_and_the_tier_multiplies_it(connection):
    create(connection, "base", ALL)
    create(connection, "total", "select count(*) as orders from base")
    create(connection, "cold", "select orders from total", tier="cold")
    follows = ["streams.public.base"]
    assert config(connection, "total") == {"poll_interval_ms": 1_000, "follows": follows}
    connection.execute("select tide.setting_set('stream_calculated_min_interval_ms', '300')")
    assert config(connection, "total") == {"poll_interval_ms": 300, "follows": follows}
    follows_both = [*follows, "streams.public.total"]
    assert config(connection, "cold") == {"poll_interval_ms": 3_000, "follows": follows_both, "tier": "cold"}
    connection.execute("select tide.alter_stream_table('total', schedule => '5s')")
    assert config(connection, "total") == {"poll_interval_ms": 5_000}


@pytest.fixture
def diamond(connection: Connection) -> Connection:
    """`pair` reads `left_one` and `right_one`, which read `base`; all are equal to their queries, and alone."""
    create(connection, "base", ALL)
    create(connection, "left_one", "select count(*) as n from base")
    create(connection, "right_one", "select max(order_id) as n from base")
    create(connection, "pair", "select l.n from left_one l join right_one r using (n)", diamond_consistency="none")
    for name in ("base", "left_one", "right_one", "pair"):
        refresh(connection, name)
    connection.execute("insert into orders values (2)")
    refresh(connection, "base")
    refresh(connection, "left_one")
    return connection


def test_one_that_follows_two_is_ready_when_both_are_refreshed(diamond):
    assert ready(diamond, "pair", "right_one") == ["right_one"]
    refresh(diamond, "right_one")
    assert ready(diamond, "pair", "right_one") == ["pair"]


def test_it_waits_for_none_that_is_not_refreshed(diamond):
    for change in (
        "select tide.alter_stream_table('right_one', tier => 'frozen')",
        "update tide.stream_state set errors = 1 where stream_id = (tide.find_stream('right_one')).stream_id",
    ):
        with diamond.transaction(force_rollback=True):
            diamond.execute(change)
            assert ready(diamond, "pair") == ["pair"]


def test_it_waits_for_a_refresh_that_is_under_way_but_once(diamond):
    refresh(diamond, "right_one")
    diamond.execute(
        "update tide.drain set lease_until = clock_timestamp() + interval '1 hour' where pipeline like '%right_one'"
    )
    assert ready(diamond, "pair") == ["pair"], "that one has ended since"
    refresh(diamond, "pair")
    diamond.execute("insert into orders values (3)")
    refresh(diamond, "base")
    refresh(diamond, "left_one")
    assert ready(diamond, "pair") == []
    refresh(diamond, "right_one")
    assert ready(diamond, "pair") == ["pair"]


@pytest.mark.parametrize("given", ["*/15 9-17 * * MON-FRI", "30 0 3 * * *", " @daily ", "0 0 L * 5#2"])
def test_a_cron_expression_counts_in_the_time_zone_of_the_session_that_created_it(connection, given):
    connection.execute("set time zone 'europe/berlin'")
    create(connection, "base", ALL, schedule=given, tier="cold")
    assert config(connection, "base") == {"cron": given.strip(), "time_zone": "Europe/Berlin", "tier": "cold"}
    connection.execute("set time zone 'UTC'")
    connection.execute("select tide.alter_stream_table('base', schedule => '@hourly')")
    assert config(connection, "base") == {"cron": "@hourly", "time_zone": "Europe/Berlin", "tier": "cold"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("60 * * * *", "the minute cannot be '60'"),
        ("0-61 * * * * *", "the second cannot be '0-61'"),
        ("0 25 * * *", "the hour cannot be '25'"),
        ("0 0 0 1 *", "the day of the month cannot be '0'"),
        ("0 0 1 1,13 *", r"the month cannot be '1,13'"),
        ("0 0 * * 8", "the day of the week cannot be '8'"),
        ("0 0 * * ;", "the day of the week cannot be ';'"),
        ("@often", "there is no @often"),
        ("* * * *", "is no schedule"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_what_is_wrong(connection, given, reason):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=reason) as told:
        create(connection, "base", ALL, schedule=given)
    assert "MON-FRI" in str(told.value.diag.message_hint)


def test_a_cron_expression_needs_a_time_zone_with_a_name(connection):
    connection.execute("set time zone interval '+02:30' hour to minute")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs a time zone that has a name"):
        create(connection, "base", ALL, schedule="@daily")
    create(connection, "base", ALL)


def test_a_stream_table_that_is_dropped_meanwhile_keeps_no_scheduler_from_the_others(database, connection):
    for name in ("base", "kept"):
        create(
            connection, name, ALL if name == "base" else "select 1 as one from customers", refresh_mode="DIFFERENTIAL"
        )
        refresh(connection, name)
    connection.execute("insert into customers values (1)")
    with database.connect() as dropping, ThreadPoolExecutor(1) as threads:
        dropping.execute("begin")
        dropping.execute("select tide.drop_stream_table('base')")
        asked = threads.submit(ready, connection, "base", "kept")
        waits = "select count(*) > 0 from pg_locks where not granted and pid = %s"
        wait_until(lambda: dropping.execute(waits, [connection.info.backend_pid]).fetchone() == (True,), 20, "it waits")
        dropping.execute("commit")
        assert "kept" in asked.result()


def test_a_duration_of_five_parts_is_a_duration(connection):
    create(connection, "base", ALL, schedule="1d 2h 3m 4s 5ms")
    assert config(connection, "base") == {"poll_interval_ms": 93_784_005}
