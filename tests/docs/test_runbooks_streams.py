"""The runbooks of stream tables, each on a fleet with the problem: it shows as printed, and is fixed."""

from collections.abc import Iterator

import pytest

from relay.local.servers import EmbeddedRedis
from tests.docs.runbooks import PATIENCE_SECONDS, Runbook
from tests.docs.stream_pages import StreamSite, stream_site
from tests.fleets.processes import WorkersProcess
from tests.services.postgres import PostgresServer
from tests.sql.streams.streams import assert_equal

pytestmark = [pytest.mark.xdist_group("stream-pages"), pytest.mark.timeout(300)]
QUERY = "select region, sum(amount) as amount, sum(amount / units) as each from orders group by region"


@pytest.fixture(scope="module")
def site(
    _postgres18: PostgresServer, _redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StreamSite]:
    with stream_site(_postgres18, _redis, tmp_path_factory.mktemp("stream-runbooks") / "fleet") as made:
        with made.database.connect() as db:
            db.execute("create table orders (order_id int primary key, region text, amount numeric, units int)")
            db.execute("insert into orders values (1, 'north', 10, 1), (2, 'south', 20, 2)")
            options = "schedule => '200ms', refresh_mode => 'DIFFERENTIAL'"
            db.execute(f"select tide.create_stream_table('region_totals', %s, {options})", [QUERY])
            db.execute("select tide.wait_for_stream_table('region_totals')")
        yield made


def runbook(site: StreamSite, heading: str) -> Runbook:
    return Runbook(heading, site.database.url, site.broker_url)


def run(site: StreamSite, statement: str) -> None:
    with site.database.connect() as db:
        db.execute(statement)


def wait_equal(site: StreamSite) -> None:
    with site.database.connect() as db:
        db.execute("select tide.wait_for_stream_table('region_totals', '90 s')")
        assert_equal(db, "region_totals")


def test_stale(site: StreamSite) -> None:
    trouble = runbook(site, "TideRelayStreamStale")
    [workers] = [process for process in site.fleet.processes if isinstance(process, WorkersProcess)]
    workers.terminate()
    workers.wait_exit(PATIENCE_SECONDS)
    run(site, "insert into orders values (3, 'west', 1, 1)")
    # As if the last refresh had been an hour ago.
    run(site, "update tide.stream_state set data_timestamp = data_timestamp - interval '1 hour'")
    try:
        trouble.look()
        assert not trouble.is_over()
        trouble.fix()
    finally:
        workers.start()
    trouble.wait_over()
    wait_equal(site)


def test_failing(site: StreamSite) -> None:
    trouble = runbook(site, "TideRelayStreamFailing")
    run(site, "insert into orders values (4, 'east', 1, 0)")
    trouble.look()
    assert not trouble.is_over()
    trouble.fix()
    trouble.wait_over()
    wait_equal(site)


def test_fallback(site: StreamSite) -> None:
    trouble = runbook(site, "TideRelayStreamFallback")
    run(site, "insert into orders values (5, 'east', 'NaN', 1)")
    trouble.look()
    assert not trouble.is_over()
    trouble.fix()
    wait_equal(site)  # the refresh that removes the value cannot follow either
    run(site, "insert into orders values (6, 'south', 1, 1)")
    trouble.wait_over()
    wait_equal(site)
