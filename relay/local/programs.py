"""The programs that `relay demo` and `relay up` run: a real scheduler and real workers, in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from threading import Thread
from typing import IO

from relay.local.server_process import guard
from relay.reach import Reach
from relay.settings import PREFIXES, Settings

STOP_TIMEOUT_SECONDS = 35.0
# A line longer than this comes in pieces.
LINE_BYTES = 1024 * 1024
_REACH = tuple(field.name for field in fields(Reach))

Line = Callable[[bytes], object]


class Program:
    """One program. It has its own session, so that Ctrl-C reaches only us; it ends when we end, however we end.

    `on_output` and `on_log` get its lines of standard output and standard error, each on a thread of its own.
    One thread at a time may call the methods.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], on_output: Line, on_log: Line) -> None:
        self._command = command
        self._environment = dict(environment)
        self._on_output, self._on_log = on_output, on_log
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._pumps: list[Thread] = []

    @property
    def pid(self) -> int | None:
        """Of the running program; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    def start(self) -> None:
        """Stops what is left of an earlier run first."""
        self.stop()
        self._process = process = subprocess.Popen(
            self._command, env=self._environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._guard = guard(process.pid, signal.SIGTERM)
        assert process.stdout is not None
        assert process.stderr is not None
        streams = ((process.stdout, self._on_output), (process.stderr, self._on_log))
        self._pumps = [Thread(target=_pump, args=stream, daemon=True) for stream in streams]
        for pump in self._pumps:
            pump.start()

    def ask_to_stop(self) -> None:
        if self._process is not None and self.pid is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Gracefully, if it stops in time. Every line that it wrote has been passed on when this returns."""
        if self._process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        self._kill_group(self._process)
        for pump in self._pumps:
            pump.join(timeout=5)
        self._process = None
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()

    def _kill_group(self, process: "subprocess.Popen[bytes]") -> None:
        """Also the children that a killed parent left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_scheduler(settings: Settings, *, on_output: Line, on_log: Line, inherit: bool) -> Program:
    """`relay-scheduler`. With `inherit` it sees the other RELAY_ variables of our environment too."""
    # -P: a folder `scheduler` in the current one must not be taken for ours.
    command = [sys.executable, "-P", "-m", "scheduler.cli"]
    return Program(command, environment(settings, inherit=inherit), on_output, on_log)


def make_workers(settings: Settings, *, on_output: Line, on_log: Line, inherit: bool) -> Program:
    """`dramatiq relay.workers`."""
    return Program(workers_command(settings), environment(settings, inherit=inherit), on_output, on_log)


def make_api(settings: Settings, *, on_output: Line, on_log: Line, inherit: bool) -> Program:
    """`relay api`."""
    command = [sys.executable, "-P", "-m", "relay.cli", "api"]
    return Program(command, environment(settings, inherit=inherit), on_output, on_log)


def workers_command(settings: Settings, queues: Sequence[str] = ()) -> list[str]:
    """The command that runs the workers. No URL is on it: every user of the machine can read a command line."""
    # -P, and --path with nothing: a folder `workers` in the current one must not be taken for ours.
    return [
        sys.executable, "-P", "-m", "relay.process.dramatiq_command", "relay.workers", "--path",
        "--processes", str(settings.worker_processes), "--threads", str(settings.worker_threads),
        "--worker-shutdown-timeout", str(round(settings.worker_shutdown_timeout_seconds * 1000)),
        *(["--queues", *queues] if queues else []),
    ]  # fmt: skip


def worker_environment(settings: Settings) -> dict[str, str]:
    """What worker processes that replace this one must find in their environment."""
    return settings.as_variables(
        "postgres_url", "broker_url", "worker_processes", "worker_threads", "job_modules", "job_queues", *_REACH
    )


def environment(settings: Settings, *, inherit: bool) -> dict[str, str]:
    """The environment of a program with these settings."""
    kept = {name: value for name, value in os.environ.items() if inherit or not name.startswith(PREFIXES)}
    return kept | settings.as_variables(
        "postgres_url", "broker_url", "metrics_addr", "worker_metrics_addr", "worker_processes",
        "worker_threads", "api_addr", "api_metrics_addr", "admin_addr", "job_modules", "job_queues", *_REACH,
    )  # fmt: skip


def _pump(stream: IO[bytes], on_line: Line) -> None:
    with stream:
        while line := stream.readline(LINE_BYTES):
            on_line(line)
