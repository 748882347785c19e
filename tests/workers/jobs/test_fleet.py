"""Jobs in a real fleet: enqueued in a transaction, run by a real worker process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.jobs import enqueue
from tests.waiting import wait_until

MODULE = "tests.workers.jobs.job_handlers"


class Jobs:
    """The jobs of one database, and what their handlers have seen."""

    def __init__(self, database: Any, fleet: Any, seen: Path) -> None:
        self.database, self.fleet, self.seen_at = database, fleet, seen
        self.connection = database.connect()

    def workers(self, name: str = "", **variables: str) -> Any:
        return self.fleet.workers(
            name, threads=2, RELAY_JOB_MODULES=MODULE, TEST_JOBS_SEEN=str(self.seen_at), **variables
        )

    def enqueue(self, name: str, queue: str = "quick", **arguments: Any) -> str:
        return enqueue(self.connection, queue, name, arguments)

    def state(self, job: str) -> str:
        return self.one(
            "select tide.job_state(q.name, j.id)"
            "  from tide.job_of_uuid(%s) j join tide.job_queue q on q.outbox_id = j.outbox_id", job,
        )  # fmt: skip

    def attempts(self, job: str) -> list[Any]:
        return self.connection.execute("select * from tide.job_attempts(%s)", (job,)).fetchall()

    def one(self, statement: str, *parameters: Any) -> Any:
        return self.connection.execute(statement, parameters).fetchone()[0]

    def seen(self, what: str = "") -> list[dict[str, Any]]:
        lines = self.seen_at.read_text().splitlines() if self.seen_at.exists() else []
        return [each for each in map(json.loads, lines) if not what or each["what"] == what]

    def wait(self, job: str, *states: str) -> str:
        wait_until(lambda: self.state(job) in states, 30, f"{job} is {states}")
        return self.state(job)


@pytest.fixture
def jobs(database, fleet, tmp_path) -> Iterator[Jobs]:
    made = Jobs(database, fleet, tmp_path / "seen")
    yield made
    made.connection.close()


def test_enqueued_job_runs(jobs):
    jobs.fleet.scheduler()
    jobs.workers()
    jobs.fleet.wait_ready()
    wait_until(lambda: jobs.one("select count(*) from tide.job_worker"), 30, "a worker runs jobs")
    with jobs.connection.transaction():
        job = jobs.enqueue("note", n=7)
    assert jobs.wait(job, "succeeded", "dead_letter") == "succeeded"
