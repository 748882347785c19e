"""Stream tables that a fleet keeps equal to their queries while others write, and what happens when things break."""

import json
import random

import pytest

from tests.cli.command import invoke
from tests.waiting import wait_until

SUMS = "select region, count(*) as orders, sum(amount) as amount from orders group by region"
DIFFERS = "select count(*) from (({query}) except all select * from {name}) d"


@pytest.fixture
def streams(fleet, pipelines):
    """A table, and a fleet that waits for stream tables."""
    pipelines.run(
        "create table orders (order_id int generated always as identity primary key, region text, amount numeric)"
    )
    pipelines.run("insert into orders (region, amount) values ('north', 1), ('south', 2)")
    fleet.scheduler()
    fleet.workers()
    fleet.wait_ready()
    return pipelines


def is_equal(streams, name="sums", query=SUMS):
    """Under one snapshot, as multisets."""
    one, other = f"({query}) except all select * from {name}", f"select * from {name} except all ({query})"
    return streams.run(f"select count(*) from (({one}) union all ({other})) d") == [(0,)]


def wait_equal(streams, name="sums", query=SUMS):
    wait_until(lambda: is_equal(streams, name, query), 20, f"stream table {name} equals its query")


def test_the_fleet_fills_a_table_and_keeps_it_equal_to_its_query(streams):
    streams.run("select tide.create_stream_table('sums', %s, schedule => '200ms')", SUMS)
    wait_equal(streams)
    chance = random.Random(3)
    for _ in range(20):
        streams.run("insert into orders (region, amount) values (%s, %s)", chance.choice("nswe"), chance.randint(1, 9))
        streams.run("delete from orders where order_id = %s", chance.randint(1, 20))
    wait_equal(streams)
    [(inserted,)] = streams.run("select sum(rows_inserted) from tide.stream_history")
    assert inserted >= 4


def test_a_stream_table_over_another_follows_it(streams):
    streams.run("select tide.create_stream_table('sums', %s, schedule => '200ms')", SUMS)
    total = "select sum(amount) as amount from sums"
    streams.run("select tide.create_stream_table('total', %s)", total)
    streams.run("insert into orders (region, amount) values ('west', 40)")
    wait_until(lambda: streams.run("select amount from total") == [(43,)], 20, "the change came through both")


def test_a_query_that_fails_is_suspended_after_three_times_and_resumed_by_hand(streams):
    streams.run(
        "select tide.create_stream_table('sums', 'select 1 / amount as share from orders', schedule => '100ms')"
    )
    wait_until(lambda: streams.run("select count(*) from sums") == [(2,)], 20, "it is filled")
    streams.run("insert into orders (region, amount) values ('none', 0)")
    status = "select status, consecutive_errors, last_error from tide.stream_tables()"
    wait_until(lambda: streams.run(status)[0][0] == "SUSPENDED", 30, "it is suspended")
    assert streams.run(status) == [("SUSPENDED", 3, "division by zero")]
    found = invoke("doctor", "--json", url=streams.url).output
    assert "public.sums: three refreshes in a row failed, so none is tried: division by zero" in found
    streams.run("delete from orders where amount = 0")
    streams.run("insert into orders (region, amount) values ('west', 4)")
    streams.run("select tide.resume_stream_table('sums')")
    wait_until(lambda: streams.run("select count(*) from sums") == [(3,)], 20, "it goes on")
    assert streams.run(status) == [("ACTIVE", 0, None)]


def test_a_worker_that_is_killed_within_a_refresh_costs_nothing(fleet, pipelines):
    pipelines.run("create table orders (region text, amount numeric)")
    pipelines.run("insert into orders values ('north', 1)")
    pipelines.run(
        "create function slow(n bigint) returns bigint language plpgsql as 'begin perform pg_sleep(1); return n; end'"
    )
    fleet.scheduler()
    workers = fleet.workers()
    fleet.wait_ready()
    pipelines.run(
        "select tide.create_stream_table('sums', %s)",
        "select region, public.slow(count(*)) as orders from orders group by region",
    )
    active = "select count(*) from tide.drain where lease_until is not null"
    wait_until(lambda: pipelines.run(active) == [(1,)], 20, "a refresh is under way")
    workers.kill()
    pipelines.run("insert into orders values ('south', 1)")
    workers.start()
    wait_until(lambda: pipelines.run("select count(*) from sums") == [(2,)], 40, "both rows are there")


def test_the_command_line_creates_shows_and_drops(streams):
    def cli(*words):
        done = invoke("stream", *words, url=streams.url)
        assert done.exit_code == 0, done.output
        return done.output

    cli("create", "sums", SUMS, "--schedule", "200ms")
    wait_equal(streams)
    [shown] = json.loads(cli("list", "--json"))
    assert (shown["name"], shown["status"], shown["behind"]) == ("public.sums", "ACTIVE", None)
    assert "refreshed when its sources change" in invoke("status", url=streams.url).output
    cli("set", "sums", "--tier", "frozen")
    assert "suspended, frozen or disabled" in invoke("status", url=streams.url).output
    streams.run("insert into orders (region, amount) values ('west', 40)")
    cli("set", "sums", "--tier", "hot")
    wait_equal(streams)
    cli("drop", "sums", "--yes")
    assert "there are no stream tables" in cli("list")
    assert streams.run("select count(*) from pg_trigger where tgname like 'tide_stream%%'") == [(0,)]
