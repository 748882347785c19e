"""Stream tables that a fleet keeps equal to their queries while others write, and what happens when things break."""

import json
import random

import psycopg
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


def test_the_fleet_follows_changes_one_by_one_and_says_what_it_did(streams):
    joined = (
        "select o.region, c.name, sum(o.amount) as amount from orders o join customers c using (region) group by 1, 2"
    )
    streams.run("create table customers (region text primary key, name text)")
    for name, query in (("sums", SUMS), ("joined", joined.replace("using (region)", "on c.region = o.region"))):
        options = "schedule => '200ms', refresh_mode => 'DIFFERENTIAL'"
        streams.run(f"select tide.create_stream_table(%s, %s, {options})", name, query)
    mode = "select effective_mode, why_full from tide.stream_tables()"
    wait_until(lambda: streams.run(mode) == [("DIFFERENTIAL", None)] * 2, 20, "the queries are analysed")
    chance = random.Random(5)
    for number in range(30):
        streams.run("insert into orders (region, amount) values (%s, %s)", chance.choice("nswe"), chance.randint(1, 9))
        streams.run("update orders set region = %s where order_id = %s", chance.choice("nswe"), chance.randint(1, 20))
        streams.run("insert into customers values (%s, %s) on conflict do nothing", chance.choice("nswe"), f"c{number}")
        streams.run("delete from customers where name = %s", f"c{chance.randint(1, 30)}")
    wait_equal(streams)
    wait_equal(streams, "joined", joined)
    done = (
        "select s.name, h.action, count(*) from tide.stream_history h join tide.stream s"
        " using (stream_id) group by 1, 2"
    )
    counts = {(name, action): number for name, action, number in streams.run(done)}
    assert counts[("public.sums", "DIFFERENTIAL")] >= 1
    assert counts[("public.joined", "DIFFERENTIAL")] >= 1
    assert counts[("public.sums", "FULL")] == 1


def test_a_query_that_cannot_be_followed_is_computed_and_says_why(streams):
    streams.run(
        "select tide.create_stream_table('top', 'select bool_or(amount > 5) as most from orders', schedule => '200ms')"
    )
    wait_equal(streams, "top", "select bool_or(amount > 5) as most from orders")
    mode = "select effective_mode, why_full from tide.stream_tables()"
    assert streams.run(mode) == [("FULL", "changes cannot be added to bool_or()")]
    [shown] = json.loads(invoke("stream", "list", "--json", url=streams.url).output)
    assert (shown["effective_mode"], shown["why_full"]) == ("FULL", "changes cannot be added to bool_or()")
    assert "FULL: changes cannot be added to bool_or()" in invoke("stream", "list", url=streams.url).output
    streams.run("insert into orders (region, amount) values ('west', 40)")
    wait_equal(streams, "top", "select bool_or(amount > 5) as most from orders")


def test_sources_that_first_change_together_are_analysed_then(streams):
    tables = [f"t{number}" for number in range(5)]
    for table in tables:
        streams.run(f"create table {table} (id int primary key, value int)")
        streams.run(f"insert into {table} select n, n from generate_series(1, 3) n")
    joins = " ".join(f"join {table} on {table}.id = t0.id" for table in tables[1:])
    query = f"select t0.id, {', '.join(f'{table}.value as {table}' for table in tables)} from t0 {joins}"
    streams.run("select tide.create_stream_table('wide', %s, schedule => '100ms')", query)
    wait_equal(streams, "wide", query)
    done = "select action, reason from tide.stream_history order by refresh_id desc limit 1"
    for action in ("FULL", "DIFFERENTIAL"):
        streams.run(
            "with one as (update t1 set value = value + 1 where id = 1 returning 1),"
            " other as (update t2 set value = value + 1 where id = 2 returning 1) select from one, other"
        )
        wait_equal(streams, "wide", query)
        assert streams.run(done)[0][0] == action


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
    assert "public.sums: 3 refreshes in a row failed, so none is tried: division by zero" in found
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


def test_a_worker_that_is_killed_while_it_follows_changes_leaves_nothing_half_done(fleet, pipelines):
    pipelines.run("create table orders (order_id int primary key, amount int)")
    pipelines.run("insert into orders values (1, 1)")
    pipelines.run("""
        create function slow(n int) returns int language plpgsql immutable set search_path = pg_catalog as
        $$ begin if n = 7 then perform pg_advisory_xact_lock(7); end if; return n; end $$
    """)
    fleet.scheduler()
    workers = fleet.workers()
    fleet.wait_ready()
    pipelines.run(
        "select tide.create_stream_table('found', %s, schedule => '100ms')",
        "select order_id, public.slow(amount) as amount from orders",
    )
    wait_until(lambda: pipelines.run("select count(*) from found") == [(1,)], 20, "it is filled")
    assert pipelines.run("select effective_mode from tide.stream_tables()") == [("DIFFERENTIAL",)]
    with psycopg.connect(pipelines.url) as holder:
        holder.execute("select pg_advisory_lock(7)")
        pipelines.run("insert into orders select n, 7 from generate_series(2, 3) n")
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7 and not granted"
        wait_until(lambda: pipelines.run(waiting) == [(1,)], 20, "a refresh is under way")
        workers.kill()
        pipelines.run("update orders set amount = 5 where order_id = 1")
    assert pipelines.run("select * from found") == [(1, 1)]
    workers.start()
    wait_until(lambda: pipelines.run("select count(*) from found where amount in (5, 7)") == [(3,)], 40, "all is there")
    actions = pipelines.run("select action, count(*) from tide.stream_history group by 1 order by 1")
    assert actions == [("DIFFERENTIAL", 1), ("FULL", 1)]


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
