"""Groups of stream tables that a fleet refreshes as one."""

import json

import pytest

from tests.cli.command import invoke
from tests.waiting import wait_until
from tests.workers.test_streams import streams  # noqa: F401

COUNTS = "select region, count(*) as orders from orders group by region"
SUMS = "select region, sum(amount) as amount from orders group by region"
PAIR = "select c.region, c.orders, s.amount from counts c join sums s on s.region = c.region"


@pytest.fixture
def diamond(streams):  # noqa: F811
    for name, query in (("counts", COUNTS), ("sums", SUMS), ("pair", PAIR)):
        schedule = "calculated" if name == "pair" else "200ms"
        streams.run("select tide.create_stream_table(%s, %s, schedule => %s)", name, query, schedule)
    return streams


def shows(streams, region, orders):  # noqa: F811
    return streams.run("select orders from pair where region = %s", region) == [(orders,)]


def test_a_fleet_refreshes_a_diamond_in_one_transaction_and_goes_on_without_one_that_fails(diamond):
    wait_until(lambda: shows(diamond, "north", 1), 30, "the group is computed")
    diamond.run("insert into orders (region, amount) values ('north', 5)")
    wait_until(lambda: shows(diamond, "north", 2), 20, "one of it follows the others")
    [(moments,)] = diamond.run("select count(distinct data_timestamp) from tide.stream_state")
    assert moments == 1
    shown, *_ = json.loads(invoke("stream", "list", "--json", url=diamond.url).output)
    assert (shown["name"], shown["refreshed_with"]) == ("public.counts", ["public.pair", "public.sums"])
    # One fails: nothing of the group is written, until it is suspended.
    diamond.run("alter table sums add constraint small check (amount < 100)")
    diamond.run("insert into orders (region, amount) values ('north', 500)")
    states = "select name, status from tide.stream_tables() order by 1"
    suspended = [("public.counts", "ACTIVE"), ("public.pair", "ACTIVE"), ("public.sums", "SUSPENDED")]
    wait_until(lambda: diamond.run(states) == suspended, 60, "the one that fails is suspended, and no other")
    wait_until(lambda: shows(diamond, "north", 3), 20, "the others go on")
    [(failed,)] = diamond.run("select count(*) from tide.stream_history where action = 'FAILED'")
    assert failed == 3
    diamond.run("alter table sums drop constraint small")
    diamond.run("select tide.resume_stream_table('sums')")
    wait_until(lambda: diamond.run("select amount from pair where region = 'north'") == [(506,)], 20, "all are equal")
    # The one that leads is dropped with those that read it.
    diamond.run("select tide.drop_stream_table('pair')")
    diamond.run("select tide.drop_stream_table('counts')")
    diamond.run("insert into orders (region, amount) values ('north', 1)")
    wait_until(lambda: diamond.run("select amount from sums where region = 'north'") == [(507,)], 20, "it is alone")
