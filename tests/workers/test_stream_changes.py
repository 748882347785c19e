"""Stream tables that scripts change and wait for, while a fleet refreshes them."""

import pytest

from tests.cli.command import invoke
from tests.waiting import wait_until


@pytest.fixture
def streams(fleet, pipelines):
    """A table, and a fleet that waits for stream tables."""
    pipelines.run("create table orders (order_id int generated always as identity primary key, region text)")
    pipelines.run("insert into orders (region) values ('north'), ('south')")
    fleet.scheduler()
    fleet.workers()
    fleet.wait_ready()
    return pipelines


def cli(streams, *words, exit_code=0):
    done = invoke("stream", *words, url=streams.url)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_a_script_sees_in_the_next_statement_what_it_wrote(streams):
    streams.run("select tide.create_stream_table('found', 'select order_id from orders', '100ms')")
    streams.run("select tide.create_stream_table('total', 'select count(*) as n from found')")
    for orders in range(3, 8):
        streams.run("insert into orders (region) values ('west')")
        streams.run("select tide.wait_for_stream_table('total', '40 s')")
        assert streams.run("select n from total") == [(orders,)]
    streams.run("insert into orders (region) values ('west')")
    cli(streams, "wait", "total", "--timeout", "40")
    assert streams.run("select n from total") == [(8,)]
    cli(streams, "set", "total", "--status", "suspended")
    streams.run("insert into orders (region) values ('west')")
    assert "it is suspended" in cli(streams, "wait", "total", exit_code=1)


def test_whoever_reads_while_the_query_is_replaced_sees_one_result_or_the_other(streams):
    cli(streams, "create", "found", "select region from orders", "--schedule", "100ms")
    cli(streams, "wait", "found", "--timeout", "40")
    seen = []

    def read():
        seen.append(sorted(streams.run("select * from found"), key=str))
        return len(seen[-1][0]) == 2 and seen[-1][0][1] is not None

    cli(streams, "create", "found", "select region, order_id from orders where region = 'north'", "--replace")
    wait_until(read, 20, "the new result is there")
    olds = ([("north", None), ("south", None)], [("north", 1)])
    assert all(rows in olds for rows in seen)
    cli(streams, "set", "found", "--query", "select region, order_id from orders where region = 'south'")
    cli(streams, "wait", "found", "--timeout", "40")
    assert streams.run("select * from found") == [("south", 2)]
    assert "has other columns" in cli(streams, "set", "found", "--query", "select 1 as one", exit_code=1)
