"""The runbooks of jobs, each on a fleet with the problem: it shows as printed, is fixed, and every job ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.local.servers import EmbeddedRedis
from tests.docs.runbooks import PATIENCE_SECONDS, Runbook
from tests.fleets.jobs import job_folder, jobs_in
from tests.fleets.processes import Fleet, WorkersProcess, running_fleet
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("runbooks"), pytest.mark.timeout(600)]


@dataclass
class JobSite:
    database: Database
    broker_url: str
    fleet: Fleet
    workers: WorkersProcess
    folder: Path

    def runbook(self, heading: str) -> Runbook:
        return Runbook(heading, self.database.url, self.broker_url)

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def enqueue(self, queue: str, name: str, arguments: str = "{}") -> None:
        """A job that looks as if it had waited for an hour."""
        with psycopg.connect(self.database.url) as connection:
            connection.execute("select tide.job_enqueue(%s, %s, %s, timeout_seconds => 600)", (queue, name, arguments))
            connection.execute("update tide.job set created_at = created_at - interval '1 hour'")

    def spoil(self, how: str) -> Path:
        path = job_folder(self.folder) / how
        path.touch()
        return path

    def wait_ended(self) -> None:
        def ended() -> bool:
            return self.run("select coalesce(sum(pending + leased), 0) from tide.job_stats()") == [(0,)]

        wait_until(ended, PATIENCE_SECONDS, "every job has ended")


@pytest.fixture(scope="module")
def jobs(
    _postgres18: PostgresServer, _redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JobSite]:
    folder = tmp_path_factory.mktemp("job-runbooks")
    _postgres18.start()
    _redis.start()
    database = _postgres18.create_database()
    with running_fleet(database.fleet_url(), _redis.url, folder / "fleet") as fleet:
        fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1s", RELAY_MAINTENANCE_INTERVAL="1h")
        workers = fleet.workers(**jobs_in(folder))
        fleet.wait_ready()
        site = JobSite(database, _redis.url, fleet, workers, folder)
        wait_until(
            lambda: site.run("select 1 from tide.job_worker"), PATIENCE_SECONDS, "workers have made their queues"
        )
        yield site
    _postgres18.drop_database(database)


def test_late(jobs: JobSite) -> None:
    runbook = jobs.runbook("TideRelayJobsLate")
    jobs.run("select tide.job_queue_pause('mail')")
    jobs.enqueue("mail", "send_receipt", '{"order_id": 1}')
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    runbook.wait_over()
    jobs.wait_ended()


def test_not_served(jobs: JobSite) -> None:
    runbook = jobs.runbook("TideRelayJobsNotServed")
    jobs.workers.terminate()
    jobs.workers.wait_exit(PATIENCE_SECONDS)
    jobs.enqueue("mail", "send_receipt", '{"order_id": 2}')
    try:
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
    finally:
        jobs.workers.start()
    runbook.wait_over()
    jobs.wait_ended()


def test_dead(jobs: JobSite) -> None:
    runbook = jobs.runbook("TideRelayJobsDead")
    refuse = jobs.spoil("refuse")
    jobs.enqueue("mail", "send_receipt", '{"order_id": 3}')
    runbook.look()
    assert not runbook.is_over()
    refuse.unlink()
    runbook.fix()
    runbook.wait_over()
    jobs.wait_ended()


def test_slots_exhausted(jobs: JobSite) -> None:
    runbook = jobs.runbook("TideRelayJobSlotsExhausted")
    hang = jobs.spoil("hang")
    jobs.enqueue("reports", "make_report", '{"year": 2025}')
    wait_until(
        lambda: jobs.run("select leased from tide.job_stats('reports')") == [(1,)], PATIENCE_SECONDS, "a job runs"
    )
    jobs.enqueue("reports", "make_report", '{"year": 2026}')
    try:
        runbook.look()
        assert not runbook.is_over()
        runbook.fix()
        more = jobs.fleet.workers(**jobs_in(jobs.folder))
        runbook.wait_over()
    finally:
        hang.unlink()
    jobs.wait_ended()
    more.terminate()
    more.wait_exit(PATIENCE_SECONDS)


def test_unknown(jobs: JobSite) -> None:
    runbook = jobs.runbook("TideRelayJobsUnknown")
    jobs.enqueue("mail", "send_invoice")
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    runbook.wait_over()
    jobs.wait_ended()
