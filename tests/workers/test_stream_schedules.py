"""When a fleet refreshes stream tables."""

import pytest

from tests.cli.command import invoke
from tests.waiting import wait_until

COUNT = "select count(*) as orders from orders"


@pytest.fixture
def streams(fleet, pipelines):
    """A table, and a fleet that waits for stream tables."""
    pipelines.run("create table orders (order_id int generated always as identity primary key, amount int)")
    pipelines.run("insert into orders (amount) values (1)")
    pipelines.scheduler = fleet.scheduler()
    fleet.workers()
    fleet.wait_ready()
    return pipelines


def create(streams, name, query=COUNT, **options):
    named = "".join(f", {option} => %s" for option in options)
    streams.run(f"select tide.create_stream_table(%s, %s{named})", name, query, *options.values())


def wait_rows(streams, name, expected, seconds=20):
    wait_until(lambda: streams.run(f"select * from {name}") == expected, seconds, f"{name} shows {expected}")


def refreshes(streams, name):
    [(number,)] = streams.run(
        "select count(*) from tide.stream_history join tide.stream using (stream_id) where name = %s", f"public.{name}"
    )
    return number


def test_a_new_owner_keeps_to_the_schedule_and_a_shorter_one_counts_at_once(fleet, streams):
    create(streams, "daily", schedule="1d")
    create(streams, "pulse", "select clock_timestamp() as at", schedule="100ms")
    wait_rows(streams, "daily", [(1,)])
    streams.run("insert into orders (amount) values (2)")
    streams.scheduler.kill()
    second = fleet.scheduler()
    wait_until(lambda: second.owned() == 2, 30, "another one owns both")
    before = refreshes(streams, "pulse")
    wait_until(lambda: refreshes(streams, "pulse") > before + 3, 20, "it refreshes what is due")
    assert streams.run("select * from daily") == [(1,)]
    streams.run("select tide.alter_stream_table('daily', schedule => '200ms')")
    wait_rows(streams, "daily", [(2,)])


def test_someone_asks_for_a_refresh_before_its_time(streams):
    create(streams, "daily", schedule="1d")
    wait_rows(streams, "daily", [(1,)])
    streams.run("insert into orders (amount) values (2)")
    streams.run("select tide.refresh_stream_table('daily')")
    wait_rows(streams, "daily", [(2,)])


def test_a_refresh_that_takes_longer_than_its_interval_is_followed_by_the_next_and_never_overlapped(streams):
    streams.run(
        "create function slow() returns timestamptz language plpgsql as "
        "'begin perform pg_sleep(0.3); return clock_timestamp(); end'"
    )
    create(streams, "slow_one", "select public.slow() as at", schedule="100ms")
    wait_until(lambda: refreshes(streams, "slow_one") >= 5, 30, "some refreshes")
    overlaps = """
        select count(*) from (
            select started_at,
                   lag(started_at + make_interval(secs => milliseconds / 1000)) over (order by refresh_id) as ended
              from tide.stream_history) h
         where started_at < ended"""
    assert streams.run(overlaps) == [(0,)]


def chain(streams, *names):
    """Each reads the one before; the first reads the orders."""
    below = "orders"
    for name in names:
        query = COUNT if below == "orders" else f"select orders from {below}"
        create(streams, name, query, **({"schedule": "200ms"} if below == "orders" else {}))
        below = name


def test_a_chain_that_several_schedulers_own_is_refreshed_from_end_to_end_at_once(fleet, streams):
    """By the slow look alone each step would take seconds."""
    fleet.scheduler()
    names = ["one", "two", "three", "four", "five", "six"]
    chain(streams, *names)
    wait_rows(streams, "six", [(1,)], 60)
    wait_until(lambda: streams.run("select count(distinct owner) from tide.drain") == [(2,)], 20, "both own some")
    for orders in range(2, 7):
        streams.run("insert into orders (amount) values (1)")
        wait_rows(streams, "six", [(orders,)], 12)


def test_one_that_reads_two_waits_for_both(streams):
    streams.run(
        "create function slow(n int) returns int language plpgsql immutable as "
        "'begin perform pg_sleep(0.3); return n; end'"
    )
    streams.run("select tide.setting_set('stream_calculated_min_interval_ms', '100')")
    create(streams, "base", "select order_id from orders", schedule="100ms")
    create(streams, "lowest", "select min(order_id) - 1 as n, count(*) as orders from base")
    create(streams, "highest", "select public.slow(max(order_id)) as n from base")
    create(streams, "pair", "select l.orders, h.n from lowest l, highest h")
    wait_rows(streams, "pair", [(1, 1)])
    before = refreshes(streams, "pair")
    for orders in range(2, 8):
        streams.run("insert into orders (amount) values (1)")
        wait_rows(streams, "pair", [(orders, orders)])
    assert refreshes(streams, "pair") == before + 6


def test_a_cron_expression_refreshes_at_its_ticks_and_not_between(streams):
    create(streams, "ticks", schedule="* * * * * *")
    create(streams, "yearly", schedule="0 0 1 1 *")
    wait_rows(streams, "yearly", [(1,)])
    for orders in (2, 3):
        streams.run("insert into orders (amount) values (1)")
        wait_rows(streams, "ticks", [(orders,)])
    assert streams.run("select * from yearly") == [(1,)]


def test_a_cron_expression_that_only_the_scheduler_can_judge_is_named(streams):
    create(streams, "never", schedule="0 0 31 2 *")
    status = "select status, left(last_error, 67) from tide.stream_tables()"
    reason = "schedule: '0 0 31 2 *' is not a cron expression: bad day-of-month."
    wait_until(lambda: streams.run(status) == [("ERROR", f"{reason} ")], 20, "it is judged")
    found = invoke("doctor", "--json", url=streams.url).output
    assert f"public.never: {reason}" in found
    assert "relay stream set NAME --schedule" in found
    streams.run("select tide.alter_stream_table('never', schedule => '1s')")
    wait_rows(streams, "never", [(1,)])
    assert streams.run(status) == [("ACTIVE", None)]


def test_no_more_are_refreshed_at_once_than_the_setting_says_whoever_owns_them(fleet, streams):
    fleet.scheduler()
    streams.run("select tide.setting_set('stream_max_concurrent_refreshes', '1')")
    streams.run(
        "create function slow() returns timestamptz language plpgsql as "
        "'begin perform pg_sleep(0.1); return clock_timestamp(); end'"
    )
    names = [f"slow_{number}" for number in range(6)]
    for name in names:
        create(streams, name, "select public.slow() as at", schedule="100ms")
    wait_until(lambda: all(refreshes(streams, name) >= 3 for name in names), 60, "each has its turn")
    overlaps = """
        select count(*) from tide.stream_history a join tide.stream_history b on a.refresh_id < b.refresh_id
         where a.started_at < b.started_at + make_interval(secs => b.milliseconds / 1000)
           and b.started_at < a.started_at + make_interval(secs => a.milliseconds / 1000)"""
    assert streams.run(overlaps) == [(0,)]
