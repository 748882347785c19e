"""A fleet of real processes, `relay-scheduler` and `dramatiq relay.workers`: to be killed, frozen, stopped."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from relay.local.server_process import free_port
from tests.faults.audit import FOREVER_NS, Span
from tests.fleets.forked import SHOW_STACKS, Forked, launch
from tests.fleets.proc import is_alive, waits_in
from tests.paths import REACH, ROOT
from tests.waiting import wait_until

START_SECONDS = 60
STOP_SECONDS = 40


P = TypeVar("P", bound="RelayProcess")


class RelayProcess:
    """One `relay-scheduler`, or one `dramatiq` with its children, in a process group of its own."""

    def __init__(self, fleet: "Fleet", name: str, command: list[str], environment: dict[str, str], port: int) -> None:
        self.fleet, self.name, self.port = fleet, name, port
        self._command, self._environment = command, environment
        self.log = fleet.folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._log_start = 0

    def start(self) -> None:
        """Does not wait: see `wait_ready`."""
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._process = launch(self._command, self._environment, output, self.fleet.root)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        raise NotImplementedError

    def wait_ready(self) -> None:
        def ready() -> bool:
            self.check_running()
            return self.is_ready()

        wait_until(ready, START_SECONDS, f"{self.name} is ready")

    def check_running(self) -> None:
        assert self.is_running, f"{self.name} ended with {self.exit_code}:\n{self.text()[-3000:]}"

    def text(self) -> str:
        """What this run of it logged."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace") if self.log.exists() else ""

    def says(self, words: str) -> bool:
        return words in self.text()

    def pids(self) -> list[int]:
        """Itself and its children, oldest first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with contextlib.suppress(FileNotFoundError):
            return [self.pid, *map(int, children.read_text().split())]
        return [self.pid]

    def kill(self) -> None:
        """kill -9 of all its processes at once; returns when they are gone."""
        pids = self.pids()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._reap(pids)

    def freeze(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)
            self.fleet.frozen[pid].append((time.monotonic_ns(), FOREVER_NS))

    def thaw(self) -> None:
        for pid in self.pids():
            since, _ = self.fleet.frozen[pid].pop()
            self.fleet.frozen[pid].append((since, time.monotonic_ns()))
            os.kill(pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM to the process that a supervisor would send it to. Does not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def wait_exit(self, timeout_seconds: float = STOP_SECONDS) -> int:
        assert self._process is not None
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            left = {pid: waits_in(pid) for pid in self.pids() if is_alive(pid)}
            if isinstance(self._process, Forked):
                self._show_stacks(left)
            raise AssertionError(
                f"{self.name} did not end in {timeout_seconds} s; its processes wait in {left}:\n{self.text()[-9000:]}"
            ) from None

    def _show_stacks(self, pids: Iterable[int]) -> None:
        """Has these processes write to the log where their threads are; one that cannot is not waited for long."""
        for pid in pids:
            before = len(self.text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SHOW_STACKS)
            deadline = time.monotonic() + 5
            while len(self.text()) == before and time.monotonic() < deadline:
                time.sleep(0.01)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 if nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of this name that have these labels, once it answers."""

        def shown() -> str:
            status, body = self.get("/metrics")
            assert status in (0, 200), body
            return body

        total = 0.0
        for line in wait_until(shown, START_SECONDS, f"{self.name} shows its metrics").splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                given = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if labels.items() <= given.items():
                    total += float(found[3])
        return total

    def _reap(self, pids: list[int]) -> None:
        self.wait_exit()
        wait_until(lambda: not any(map(is_alive, pids)), STOP_SECONDS, f"the processes of {self.name} are gone")
        now = time.monotonic_ns()
        self.fleet.kills.update(dict.fromkeys(pids, now))


class SchedulerProcess(RelayProcess):
    def is_ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def owned(self) -> int:
        """How many pipelines it owns; 0 if it does not answer."""
        status, body = self.get("/health")
        return int(json.loads(body)["pipelines_owned"]) if status else 0


class WorkersProcess(RelayProcess):
    processes = 1

    def is_ready(self) -> bool:
        return self.text().count("Worker process is ready") >= self.processes

    def children(self) -> list[int]:
        """The processes that drain. (The last child of `dramatiq` serves metrics.)"""
        return self.pids()[1 : 1 + self.processes]

    def kill_child(self) -> None:
        """kill -9 of one process that drains; Dramatiq then ends the others, and itself."""
        (victim, *_), pids = self.children(), self.pids()
        os.kill(victim, signal.SIGKILL)
        # What a kill interrupts has ended when the process is gone, not when Dramatiq has noticed.
        wait_until(lambda: not is_alive(victim), STOP_SECONDS, "the victim is gone")
        self.fleet.kills[victim] = time.monotonic_ns()
        self._reap([pid for pid in pids if pid != victim])


class Fleet:
    """Makes processes, keeps their logs, ends them all."""

    def __init__(self, postgres_url: str, broker_url: str, folder: Path) -> None:
        self.postgres_url, self.broker_url, self.folder = postgres_url, broker_url, folder
        self.root = ROOT
        """Whose programs it runs: those of this checkout, unless a test has others."""
        folder.mkdir(parents=True, exist_ok=True)
        self.kills: dict[int, int] = {}
        """pid -> when it was killed, as `audit.judge` wants it."""
        self.frozen: defaultdict[int, list[Span]] = defaultdict(list)
        self.processes: list[RelayProcess] = []

    def scheduler(self, name: str = "", *arguments: str, **variables: str) -> SchedulerProcess:
        """A running scheduler; not waited for. `variables` are settings, such as RELAY_DISCOVERY_INTERVAL."""
        command = [sys.executable, "-m", "tests.fleets.scheduler_app", *arguments]
        return self._start(SchedulerProcess, name or f"scheduler{len(self.processes)}", command, variables)

    def workers(
        self, name: str = "", *arguments: str, threads: int = 4, processes: int = 1, **variables: str
    ) -> WorkersProcess:
        """A running group of workers; not waited for."""
        command = [sys.executable, "-m", "dramatiq", "relay.workers", "tests.fleets.register_recording_sink"]
        command += ["-p", str(processes), "-t", str(threads), "--skip-logging"]
        command += ["--worker-shutdown-timeout", "20000", *arguments]
        variables = {"RELAY_WORKER_THREADS": str(threads)} | variables
        return self.group(name or f"workers{len(self.processes)}", command, variables, processes)

    def group(self, name: str, command: list[str], variables: dict[str, str], processes: int) -> WorkersProcess:
        """A group of workers that a command runs."""
        made = self._start(WorkersProcess, name, command, {"TMPDIR": str(self.folder)} | variables)
        made.processes = processes
        return made

    def wait_ready(self) -> None:
        for process in self.processes:
            if process.is_running:
                process.wait_ready()

    def wait_for_one(self, timeout_seconds: float = START_SECONDS) -> list[RelayProcess]:
        """Those that are ready, as soon as one is. None may have ended by itself."""

        def ready() -> list[RelayProcess]:
            for process in self.processes:
                process.check_running()
            return [process for process in self.processes if process.is_ready()]

        names = ", ".join(process.name for process in self.processes)
        return wait_until(ready, timeout_seconds, f"one of {names} is ready; their logs are in {self.folder}")

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait_exit()

    def logs(self, lines: int = 60) -> str:
        """The end of each log."""
        shown = (f"--- {p.name}\n" + "\n".join(p.log.read_text().splitlines()[-lines:]) for p in self.processes)
        return "\n".join(shown)

    def fenced(self) -> set[str]:
        """The pipelines of which a drain outlived its lease, as the workers said."""
        logs = (process.log.read_text() for process in self.processes)
        return {found[1] for log in logs for found in re.finditer(r"drain fenced .* pipeline=(\S+)", log)}

    def _start(self, kind: Callable[..., P], name: str, command: list[str], variables: dict[str, str]) -> P:
        port = free_port()
        kept = {k: v for k, v in os.environ.items() if not re.match(r"(PGTRICKLE_)?RELAY_|PROMETHEUS_", k)}
        environment = (
            kept
            | REACH
            | {
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": str(self.root),
                "RELAY_POSTGRES_URL": self.postgres_url,
                "RELAY_BROKER_URL": self.broker_url,
                "RELAY_METRICS_ADDR": f"127.0.0.1:{port}",
                "RELAY_WORKER_METRICS_ADDR": f"127.0.0.1:{port}",
            }
        )
        made = kind(self, name, command, environment | variables, port)
        made.start()
        self.processes.append(made)
        return made


@contextlib.contextmanager
def running_fleet(postgres_url: str, broker_url: str, folder: Path, quiet: bool = False) -> Iterator[Fleet]:
    """A fleet that is gone at the end; its logs are printed unless `quiet`: pytest shows them when the test failed."""
    fleet = Fleet(postgres_url, broker_url, folder)
    try:
        yield fleet
    finally:
        fleet.close()
        if not quiet:
            print(fleet.logs())
