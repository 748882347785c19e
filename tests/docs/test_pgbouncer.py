"""docs/operations/pgbouncer.md: what works through a pooler, what does not, and what it looks like then."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from relay.database import pooler
from relay.database.connection import Connection, connect, make_worker_pool
from relay.drains.outbox import Reader
from relay.errors import ConfigError, NotConnected
from relay.local.servers import EmbeddedRedis
from relay.settings import Settings
from scheduler.session import Session
from tests.cli.command import invoke
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.scheduler.owning import own
from tests.services.pgbouncer import PgBouncer
from tests.services.postgres import Database
from tests.sql.support import begin, publish, publish_many
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("pgbouncer"), pytest.mark.timeout(600)]
PATIENCE_SECONDS = 90
Pooled = Callable[..., str]


def end_of_log(database: Database) -> str:
    return f"the end of PostgreSQL's log:\n{database.server.log.read_text(errors='replace')[-3000:]}"


@pytest.fixture
def pooled(database: Database, own_dirs: Callable[[], Path]) -> Iterator[Pooled]:
    """The URL of the fleet's role through a pool of this mode and size. A test that fails shows the logs: they
    alone say why a connection was closed."""
    with ExitStack() as stack:

        def make(mode: str, size: int) -> str:
            settings = [f"pool_mode = {mode}", f"default_pool_size = {size}"]
            pooler = stack.enter_context(PgBouncer(own_dirs(), database.fleet_url(), settings))
            stack.callback(lambda: print(f"{mode} mode: {pooler.story()}\n{end_of_log(database)}"))
            return pooler.url

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


def test_workers_in_transaction_mode_share_sessions_and_deliver_everything_once(
    database: Database, redis_server: EmbeddedRedis, pooled: Pooled, tmp_path: Path
) -> None:
    """Three outboxes in two sessions, with publishers that stay open: a horizon of another one would lose messages."""
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    names = ["orders", "bills", "mails"]
    url = pooled("transaction", 2)
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        for name in names:
            pipelines.make(name)
        fleet.scheduler()
        workers = fleet.workers(threads=3, RELAY_POSTGRES_URL=url)
        fleet.wait_ready()
        with Writers(pipelines, names, 600) as writers:
            wait_until(lambda: writers.have_published(3000), PATIENCE_SECONDS, "applications have published")
        pipelines.wait_settled(PATIENCE_SECONDS)
        assert "prepared statement" not in workers.text()
        assert [pipelines.drain(name)["failures"] for name in names] == [0, 0, 0]
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


@contextmanager
def drain(database: Database, settings: Settings, name: str) -> Iterator[Reader]:
    """What a worker reads an outbox of that name with, two messages at a time."""
    Pipelines(database.url, Path("unused")).make(name)
    with closing(connect(settings, "test")) as connection:
        yield Reader(begin(connection, name), max_messages=2)


def test_a_drain_reads_up_to_its_own_horizon_in_whatever_session_it_is(database: Database, pooled: Pooled) -> None:
    """Two drains in one session, one of which goes on to a horizon that it read before."""
    settings = Settings(postgres_url=pooled("transaction", 1))
    with (
        drain(database, settings, "orders") as orders,
        drain(database, settings, "bills") as bills,
        database.connect() as shop,
        database.connect() as slow,
    ):
        publish_many(shop, 2, "orders")
        with shop.transaction(force_rollback=True):
            publish(shop, "orders")
        assert publish(shop, "orders") == 4
        publish_many(shop, 9, "bills")
        assert [message.id for message in orders.read(0).messages] == [1, 2]
        with slow.transaction():
            publish(slow, "orders")
            assert publish(shop, "orders") == 6
            assert bills.read(0).horizon == 9
            assert [message.id for message in orders.read(2).messages] == [4], "5 is open, so 6 must wait"
        assert [message.id for message in orders.read(4).messages] == [5, 6]


def test_nothing_that_workers_set_is_met_by_others_in_transaction_mode(pooled: Pooled) -> None:
    url = pooled("transaction", 1)
    pool = make_worker_pool(Settings(postgres_url=url), 2)

    def often(connection: Connection) -> None:
        for number in range(10):
            connection.execute("select %s::int", [number])

    with pool.connection() as one, pool.connection() as other:
        often(one)
        often(other)
    pool.close()
    with psycopg.connect(url, prepare_threshold=None) as shop:
        shown = [shop.execute(f"show {name}").fetchall() for name in ("synchronous_commit", "enable_sort")]
    assert shown == [[("on",)], [("on",)]]


def test_direct_connections_keep_their_prepared_statements(database: Database) -> None:
    with make_worker_pool(Settings(postgres_url=database.url), 1) as pool, pool.connection() as connection:
        for number in range(10):
            connection.execute("select %s::int", [number])
        assert connection.execute("select count(*) > 0 from pg_prepared_statements").fetchall() == [(True,)]
        assert connection.execute("show synchronous_commit").fetchall() == [("off",)]


@pytest.mark.parametrize("size", [1, 4])
def test_a_scheduler_refuses_a_pool_in_transaction_mode(
    database: Database, redis_server: EmbeddedRedis, pooled: Pooled, tmp_path: Path, size: int
) -> None:
    Pipelines(database.url, tmp_path / "delivered").make("orders")
    url = pooled("transaction", size)
    with pytest.raises(ConfigError, match="Give relay-scheduler the URL of PostgreSQL itself"):
        Session(Settings(postgres_url=url))
    found = invoke("doctor", url=url, RELAY_BROKER_URL=redis_server.url)
    assert "! pooler: a connection pooler in transaction mode is in between" in found.output


@pytest.mark.parametrize("size", [1, 4])
def test_a_scheduler_works_through_a_pool_in_session_mode(database: Database, pooled: Pooled, size: int) -> None:
    """Also if no session is left for the look: then it takes a moment."""
    settings = Settings(postgres_url=pooled("session", size), connect_timeout_seconds=2.0)
    Pipelines(database.url, Path("unused")).make("orders")
    with Session(settings) as session:
        assert own(session, "orders") == ["orders"]
        session.heartbeat()


def test_a_scheduler_whose_session_goes_to_others_gives_up(database: Database, pooled: Pooled) -> None:
    """The pool was changed while it ran, or it was too busy to be seen through at the start."""
    settings = Settings(postgres_url=pooled("transaction", 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooler, "LOOKS", 0)
        session = Session(settings)
    with closing(session), psycopg.connect(settings.postgres_url, prepare_threshold=None) as other:
        session.heartbeat()
        other.execute("select 1")  # and keeps what it got: that session
        with pytest.raises(NotConnected, match="its session was given to others"):
            session.heartbeat()


def test_publishing_through_transaction_mode_loses_nothing(database: Database, pooled: Pooled) -> None:
    with database.connect() as owner:
        owner.execute("select tide.outbox_create('orders'); select tide.grant_publisher('tide_fleet')")
        with psycopg.connect(pooled("transaction", 1), prepare_threshold=None) as shop:
            for number in range(20):
                shop.execute("select tide.outbox_publish('orders', to_jsonb(%s::int))", [number])
                shop.commit()
        assert owner.execute("select count(*) from tide.message").fetchall() == [(20,)]
        owner.execute("select tide.outbox_drop('orders')")
