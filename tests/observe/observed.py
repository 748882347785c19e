"""A running fleet under a running Prometheus, which knows the rules: what the tests of this folder look at."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from relay.local.servers import EmbeddedRedis
from tests.fleets.jobs import job_folder, jobs_in
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import SchedulerProcess, WorkersProcess, running_fleet
from tests.observe.prometheus import PrometheusServer
from tests.observe.rules import alerts
from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web.api import make_hook, running_api

# A slow machine, on which a scrape, an evaluation and a turn of the fleet each take their time.
PATIENCE_SECONDS = 60
LEASE: dict[str, Any] = {"visibility_timeout_ms": 1500, "timeout_ms": 1000, "slice_ms": 5000}


class Observed:
    """One scheduler, one group of workers, one receiver of webhooks; a pipeline each way that is well."""

    def __init__(
        self,
        scheduler: SchedulerProcess,
        workers: WorkersProcess,
        pipelines: Pipelines,
        redis: EmbeddedRedis,
        prometheus: PrometheusServer,
        folder: Path,
    ) -> None:
        self.scheduler, self.workers, self.pipelines = scheduler, workers, pipelines
        self.redis, self.prometheus = redis, prometheus
        self.jobs = job_folder(folder)
        self.seen: set[str] = set()
        """The faults that were brought about already."""

    def run_sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.pipelines.run(statement, *parameters)

    def active(self, alert: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """The alerts of this name and with these labels that Prometheus has, pending or firing."""
        (rule,) = [rule for rule in self.prometheus.rules() if rule["name"] == alert]
        assert rule["health"] in ("ok", "unknown"), rule
        return [found for found in rule["alerts"] if labels.items() <= found["labels"].items()]

    def is_quiet(self, alert: str, labels: dict[str, str]) -> bool:
        return not self.active(alert, labels) and not self.query(alert, labels)

    def query(self, alert: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """What its expression gives now with short windows: whether it would be over in the end, without the wait."""
        found = self.prometheus.query(hurried(expression(alert)))
        return [series for series in found if labels.items() <= series.items()]

    def wait_active(self, alert: str, labels: dict[str, str]) -> dict[str, Any]:
        return wait_until(lambda: self.active(alert, labels), PATIENCE_SECONDS, f"{alert} is raised for {labels}")[0]

    def wait_over(self, alert: str, labels: dict[str, str]) -> None:
        wait_until(lambda: not self.query(alert, labels), PATIENCE_SECONDS, f"{alert} is over for {labels}")

    def wait_metric(self, process: SchedulerProcess | WorkersProcess, name: str, least: float, **labels: str) -> None:
        wait_until(
            lambda: process.metric(name, **labels) >= least, PATIENCE_SECONDS, f"{process.name} shows {name} {labels}"
        )


def expression(alert: str) -> str:
    (found,) = [rule["expr"] for rule in alerts() if rule["alert"] == alert]
    return str(found)


def hurried(text: str) -> str:
    """All windows are three seconds, but for the hour in which a series is looked for that was there before them."""
    text = re.sub(r"\b\d+m\b", "3s", text)
    return text.replace("[1h] offset 1h", "[1h] offset 3s").replace("[1h])", "[3s])")


@contextmanager
def running(database: Database, redis: EmbeddedRedis, prometheus: PrometheusServer, folder: Path) -> Iterator[Observed]:
    pipelines = Pipelines(database.url, folder / "delivered")
    hook = make_hook(database, "called")
    with (
        running_fleet(database.fleet_url(), redis.url, folder / "fleet", quiet=True) as fleet,
        running_api(database, folder) as api,
    ):
        # Before the queue is there, so that there is an error of the queue to be seen.
        scheduler = fleet.scheduler("s1", RELAY_MAINTENANCE_INTERVAL="500ms", TEST_MEASURE_SECONDS="0.5")
        pipelines.make("steady")
        pipelines.publish("steady", 10)
        wait_until(lambda: scheduler.metric("tide_relay_broker_errors_total"), PATIENCE_SECONDS, "the queue is missed")
        redis.start()
        workers = fleet.workers("w1", **jobs_in(folder))
        observed = Observed(scheduler, workers, pipelines, redis, prometheus, folder)
        (folder / "received.jsonl").write_text('{"id": "a"}\n{"id": "a"}\n{"id": "b"}\n')
        receive(observed, "received", folder / "received.jsonl")
        fleet.wait_ready()
        wait_until(lambda: api.send(hook, "a").status == 200, PATIENCE_SECONDS, "a message is received")
        ports = {"s1": scheduler.port, "w1": workers.port, "a1": api.metrics_port}
        prometheus.scrape(ports, namespace="shop")
        pipelines.wait_delivered("steady", [1], PATIENCE_SECONDS)
        wait_until(lambda: observed.run_sql("select 1 from tide.job_worker"), PATIENCE_SECONDS, "jobs can run")
        observed.run_sql("select tide.job_enqueue('mail', 'send_receipt', '{\"order_id\": 1}')")
        observed.wait_metric(workers, "tide_jobs_ended_total", 1, queue="mail", outcome="succeeded")
        yield observed


def receive(observed: Observed, name: str, lines: Path) -> None:
    """A reverse pipeline, an inbox of the same name, and a file that may not be there."""
    observed.run_sql("select tide.inbox_create(%s)", name)
    config = {"source_type": "file", "path": str(lines), "event_id": "$.id"}
    observed.run_sql("select tide.relay_set_inbox(%s, %s, %s)", name, name, Jsonb(config))
