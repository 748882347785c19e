"""One fleet for all runbooks of a module: each leaves it as it found it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.docs.runbooks import PATIENCE_SECONDS, Runbook
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import Fleet, SchedulerProcess, WorkersProcess, running_fleet
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until

PIPELINE, OUTBOX = "orders-out", "orders"
# A drain that was lost is missed after so long.
LEASE_MS = 3000
PARTITION = 1000


@dataclass
class Site:
    """A database, a broker, a scheduler and workers, and the pipeline that the page speaks of."""

    database: Database
    redis: EmbeddedRedis
    fleet: Fleet
    scheduler: SchedulerProcess
    workers: WorkersProcess
    pipelines: Pipelines

    def runbook(self, heading: str, **put: str) -> Runbook:
        return Runbook(heading, self.database.url, self.redis.url, put)

    def make(self, **config: object) -> None:
        self.pipelines.run("select tide.outbox_create(%s, partition_size => %s)", OUTBOX, PARTITION)
        self.pipelines.make(PIPELINE, OUTBOX, visibility_timeout_ms=LEASE_MS, timeout_ms=LEASE_MS // 2, **config)

    def publish(self, count: int = 10) -> list[int]:
        return self.pipelines.publish(OUTBOX, count)

    def deliver(self, count: int = 10) -> list[int]:
        """Publishes, and waits until all is settled."""
        ids = self.publish(count)
        self.wait_delivered(ids)
        return ids

    def fill_partitions(self, count: int) -> None:
        """Delivers so much, each partition made ahead as a scheduler would."""
        for _ in range(2 * count):
            self.deliver(PARTITION // 2)
            self.pipelines.run("select tide.outbox_extend(%s)", OUTBOX)

    def wait_delivered(self, ids: list[int]) -> None:
        self.pipelines.wait_delivered(PIPELINE, ids, PATIENCE_SECONDS)

    def wait_owned(self) -> None:
        def owned() -> bool:
            return sum(p.owned() for p in self.fleet.processes if isinstance(p, SchedulerProcess)) >= 1

        wait_until(owned, PATIENCE_SECONDS, "a scheduler owns the pipeline")

    def nothing_is_lost(self) -> None:
        """Every message that was committed was delivered, or is a dead letter, and none came that was not."""
        self.pipelines.wait_settled(PATIENCE_SECONDS)
        committed = set(self.pipelines.committed(OUTBOX))
        delivered = set(self.pipelines.delivered(PIPELINE))
        assert committed == delivered | set(self.pipelines.dead_letters(PIPELINE))

    def clear(self) -> None:
        """The pipeline, its outbox, and what they left."""
        self.pipelines.clear()


@contextmanager
def site(postgres: PostgresServer, redis: EmbeddedRedis, folder: Path) -> Iterator[Site]:
    postgres.start()
    redis.start()
    database = postgres.create_database()
    with running_fleet(database.fleet_url(), redis.url, folder / "fleet") as fleet:
        quick = {"RELAY_DISCOVERY_INTERVAL": "1s", "RELAY_MAINTENANCE_INTERVAL": "1h"}
        scheduler, workers = fleet.scheduler(**quick), fleet.workers()
        fleet.wait_ready()
        yield Site(database, redis, fleet, scheduler, workers, Pipelines(database.url, folder / "delivered"))
    postgres.drop_database(database)
