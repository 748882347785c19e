"""Jobs in a real fleet, for tests: what is enqueued, and what the handlers of `job_handlers` have seen."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.jobs import enqueue
from tests.fleets.processes import WorkersProcess
from tests.waiting import wait_until
from tests.workers.jobs import job_handlers

MODULE = job_handlers.__name__


class Jobs:
    """The jobs of one database, and what their handlers have seen."""

    def __init__(self, database: Any, fleet: Any, seen: Path) -> None:
        self.database, self.fleet, self.seen_at = database, fleet, seen
        self._connection: Any = None
        self.connect()

    @property
    def connection(self) -> Any:
        return self._connection

    def connect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self.database.connect()

    def workers(self, name: str = "workers", *, processes: int = 1, **variables: str) -> Any:
        """Workers that know the handlers; not waited for."""
        ours = {"RELAY_JOB_MODULES": MODULE} | self._settings | variables
        return self.fleet.workers(name, threads=2, processes=processes, **ours)

    def relay_workers(self) -> Any:
        """The same by the command that people use, `relay workers --jobs ...`, which takes longer to start."""
        command = [sys.executable, "-m", "relay.cli", "workers", "--jobs", MODULE, "--processes", "1"]
        return self.fleet.group("workers", command, {"RELAY_WORKER_THREADS": "2"} | self._settings, processes=1)

    @property
    def _settings(self) -> dict[str, str]:
        return {"RELAY_JOB_LEASE": "2s", "TEST_JOBS_SEEN": str(self.seen_at)}

    def enqueue(self, name: str, queue: str = "quick", after: Sequence[str] = (), **arguments: Any) -> str:
        handler = getattr(job_handlers, name, None)
        if handler is None:
            return enqueue(self.connection, queue, name, arguments)
        return handler.with_options(after=after).enqueue(self.connection, **arguments)

    def state(self, job: str) -> str:
        return self.one(
            "select tide.job_state(q.name, j.id)"
            "  from tide.job_of_uuid(%s) j join tide.job_queue q on q.outbox_id = j.outbox_id", job,
        )  # fmt: skip

    def attempts(self, job: str) -> list[Any]:
        """Number and code of each."""
        return self.connection.execute("select attempt, code from tide.job_attempts(%s)", (job,)).fetchall()

    def results(self, job: str) -> list[str]:
        return [row[0] for row in self.connection.execute("select result from tide.job_attempts(%s)", (job,))]

    def wait_ready(self) -> None:
        self.fleet.wait_ready()
        running = [process for process in self.fleet.processes if process.is_running]
        groups = [process for process in running if isinstance(process, WorkersProcess)]
        wanted = sum(group.processes for group in groups if group.name.startswith("workers"))
        wait_until(lambda: self.one("select count(*) from tide.job_worker") >= wanted, 30, "workers run jobs")

    def one(self, statement: str, *parameters: Any) -> Any:
        return self.connection.execute(statement, parameters).fetchone()[0]

    def seen(self, what: str = "") -> list[dict[str, Any]]:
        lines = self.seen_at.read_text().splitlines() if self.seen_at.exists() else []
        return [each for each in map(json.loads, lines) if not what or each["what"] == what]

    def cancel(self, job: str) -> str:
        return str(self.one("select tide.job_cancel(%s)", job))

    def wait(self, job: str, *states: str) -> str:
        wait_until(lambda: self.state(job) in states, 30, f"{job} is {states}")
        return self.state(job)


@pytest.fixture
def jobs(database, fleet, tmp_path) -> Iterator[Jobs]:
    made = Jobs(database, fleet, tmp_path / "seen")
    yield made
    made.connection.close()


@pytest.fixture
def running(jobs) -> Jobs:
    """A scheduler and a worker, whose leases are short."""
    jobs.fleet.scheduler(RELAY_JOB_LEASE="2s", TEST_RESCUE_SECONDS="0.2")
    jobs.relay_workers()
    jobs.wait_ready()
    return jobs
