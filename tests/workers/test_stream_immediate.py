"""A fleet hands stream tables over to their writers, and takes them back when it has to."""

import psycopg
import pytest

from tests.waiting import wait_until
from tests.workers.test_streams import SUMS, is_equal

JOINED = "select o.region, c.name, o.order_id from orders o join customers c on c.region = o.region"


@pytest.fixture
def streams(fleet, pipelines):
    """Two tables, and a fleet that waits for stream tables."""
    pipelines.run(
        "create table orders (order_id int generated always as identity primary key, region text, amount numeric)"
    )
    pipelines.run("create table customers (region text primary key, name text)")
    pipelines.run("insert into orders (region, amount) values ('north', 1), ('south', 2)")
    fleet.scheduler()
    fleet.workers()
    fleet.wait_ready()
    return pipelines


def maintained(streams, name):
    mode = "select effective_mode, behind from tide.stream_tables() where name = 'public.' || %s"
    wait_until(lambda: streams.run(mode, name) == [("IMMEDIATE", None)], 30, f"writers maintain {name}")


def test_writers_maintain_what_the_fleet_has_computed(streams):
    for name, query in (("sums", SUMS), ("joined", JOINED)):
        streams.run(
            "select pgtrickle.create_stream_table(%s, %s, schedule => 'IMMEDIATE', refresh_mode => 'DIFFERENTIAL')",
            name,
            query,
        )
    streams.run("select tide.wait_for_stream_table('sums', '30s'), tide.wait_for_stream_table('joined', '30s')")
    for name, query in (("sums", SUMS), ("joined", JOINED)):
        maintained(streams, name)
        for number in range(5):
            streams.run("insert into orders (region, amount) values ('north', %s)", number)
            streams.run(
                "insert into customers values ('north', 'x')"
                " on conflict (region) do update set name = customers.name || 'x'"
            )
            assert is_equal(streams, name, query)
    # A renamed column is followed by all, and its functions are made again.
    streams.run("alter table orders rename column region to place")
    streams.run("insert into orders (place, amount) values ('west', 1)")
    for name, query in (("sums", SUMS), ("joined", JOINED)):
        renamed = (
            query.replace("o.region", "o.place")
            .replace("select region", "select place as region")
            .replace("group by region", "group by place")
        )
        assert is_equal(streams, name, renamed)
        maintained(streams, name)
        streams.run("select tide.refresh_stream_table(%s)", name)
        streams.run("insert into orders (place, amount) values ('west', 1)")
        assert is_equal(streams, name, renamed)
        maintained(streams, name)


def test_what_writers_cannot_maintain_is_an_error_until_it_is_changed(streams):
    streams.run(
        "select tide.create_stream_table('top', 'select max(amount) as most from orders', refresh_mode => 'IMMEDIATE')"
    )
    state = "select status, last_error from tide.stream_tables()"
    wait_until(lambda: streams.run(state)[0][0] in {"ERROR", "SUSPENDED"}, 30, "the query is refused")
    assert 'stream table "public.top" cannot be IMMEDIATE' in streams.run(state)[0][1]
    wait_until(lambda: streams.run(state)[0][0] == "SUSPENDED", 30, "it is suspended")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        streams.run("select tide.wait_for_stream_table('top', '5s')")
    streams.run("select tide.alter_stream_table('top', refresh_mode => 'AUTO', status => 'ACTIVE')")
    wait_until(lambda: streams.run("select most from top") == [(2,)], 30, "it is refreshed")
