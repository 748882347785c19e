"""docs/operations/pgbouncer.md: what works through a pooler, what does not, and what it looks like then."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from relay.db import Connection, database_errors, make_worker_pool
from relay.embedded import EmbeddedRedis
from relay.errors import ConfigError
from relay.settings import Settings
from tests.e2e.command import invoke
from tests.e2e.pages import text_of
from tests.processes.fleet import running_fleet
from tests.processes.pipelines import Pipelines, Writers
from tests.services.pgbouncer import PgBouncer
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("pgbouncer"), pytest.mark.timeout(600)]
PATIENCE_SECONDS = 90
Pooled = Callable[..., str]


@pytest.fixture
def pooled(database: Database, own_dirs: Callable[[], Path]) -> Iterator[Pooled]:
    """The URL of the fleet's role through a pool of this mode and size."""
    with ExitStack() as stack:

        def make(mode: str, size: int) -> str:
            settings = [f"pool_mode = {mode}", f"default_pool_size = {size}"]
            return stack.enter_context(PgBouncer(own_dirs(), database.fleet_url(), settings)).url

        yield make


def test_workers_in_session_mode_deliver_everything_once(
    database: Database, redis_server: EmbeddedRedis, pooled: Pooled, tmp_path: Path
) -> None:
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    names = ["orders", "bills", "mails"]
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        for name in names:
            pipelines.make(name)
        fleet.scheduler()
        fleet.workers(threads=3, RELAY_POSTGRES_URL=pooled("session", 4))
        fleet.wait_ready()
        with Writers(pipelines, names, 600) as writers:
            wait_until(lambda: writers.have_published(600), PATIENCE_SECONDS, "applications have published")
        pipelines.wait_settled(PATIENCE_SECONDS)
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_workers_in_transaction_mode_meet_statements_of_others(pooled: Pooled) -> None:
    """With a PgBouncer before 1.21: what two sessions prepare goes into one."""
    pool = make_worker_pool(Settings(postgres_url=pooled("transaction", 1)), 2)

    def often(connection: Connection) -> None:
        with database_errors():
            for number in range(10):
                connection.execute("select %s::int", [number])

    with pool.connection() as one, pool.connection() as other:
        often(one)
        with pytest.raises(ConfigError, match=r'prepared statement "_pg3_\d" already exists'):
            often(other)
    pool.close()
    for line in ('prepared statement "_pg3_0" already exists', 'prepared statement "_pg3_0" does not exist'):
        assert line in text_of("operations/pgbouncer")


def test_two_schedulers_in_transaction_mode_own_the_same_and_nobody_says_so(
    database: Database, redis_server: EmbeddedRedis, pooled: Pooled, tmp_path: Path
) -> None:
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    pipelines.make("orders")
    pipelines.make("bills")
    url = pooled("transaction", 1)
    with running_fleet(url, redis_server.url, tmp_path / "fleet") as fleet:
        schedulers = [fleet.scheduler() for _ in range(2)]
        fleet.wait_ready()

        def claimed() -> int:
            return sum(text.text().count("pipeline owned") for text in schedulers)

        wait_until(lambda: claimed() > 2, PATIENCE_SECONDS, "more is owned than there is")
        found = invoke("doctor", url=url, RELAY_BROKER_URL=redis_server.url)
        assert "! pooler: a connection pooler stands between" in found.output


def test_publishing_through_transaction_mode_loses_nothing(database: Database, pooled: Pooled) -> None:
    with database.connect() as owner:
        owner.execute("select tide.outbox_create('orders'); select tide.grant_publisher('tide_fleet')")
        with psycopg.connect(pooled("transaction", 1), prepare_threshold=None) as shop:
            for number in range(20):
                shop.execute("select tide.outbox_publish('orders', to_jsonb(%s::int))", [number])
                shop.commit()
        assert owner.execute("select count(*) from tide.message").fetchall() == [(20,)]
        owner.execute("select tide.outbox_drop('orders')")
