"""Workers that are told to stop: as a group, again and again, while they start; and a stop that does not end."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from relay.local.servers import EmbeddedRedis
from relay.process.worker_stop import SIGNALS, WorkerStop
from tests.paths import REACH, ROOT
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)
PATIENCE_SECONDS = 60


class Program:
    """A running program, the leader of its group, and what it writes."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self._log = process, log

    def text(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        wait_until(lambda: self.text().count(words) >= times, PATIENCE_SECONDS, f"it says {words!r}")

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def environment(database: Database, redis_server: EmbeddedRedis, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "RELAY_" not in name and "PROMETHEUS" not in name}
    addresses = ("METRICS", "WORKER_METRICS", "API", "API_METRICS", "ADMIN")
    ours = {f"RELAY_{name}_ADDR": "127.0.0.1:0" for name in addresses}
    urls = {"RELAY_POSTGRES_URL": database.url, "RELAY_BROKER_URL": redis_server.url}
    return kept | REACH | ours | urls | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}


@contextmanager
def running(arguments: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[Program]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment, cwd=folder, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    program = Program(process, log)
    try:
        yield program
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        print(program.text())


WORKERS = ("relay.cli", "workers", "--processes", "2", "--threads", "2")
PROGRAMS = {
    "workers": (WORKERS, "Worker process is ready", 2),
    "dramatiq": (("dramatiq", "relay.workers", "-p", "2", "-t", "2"), "Worker process is ready", 2),
    "scheduler": (("scheduler.cli",), "scheduler started", 1),
    "api": (("relay.cli", "api"), "api started", 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_group_that_is_told_as_one_stops_in_order(
    name: str, log_format: str, environment: dict[str, str], tmp_path: Path
) -> None:
    command, words, times = PROGRAMS[name]
    with running(command, environment | {"RELAY_LOG_FORMAT": log_format}, tmp_path) as program:
        program.wait_for(words, times)
        os.killpg(program.process.pid, signal.SIGTERM)
        assert program.wait_exit() == 0


def test_told_before_it_can_log_a_worker_starts_and_stops(environment: dict[str, str], tmp_path: Path) -> None:
    command = ("tests.process.stop_app", "relay.workers", "-p", "1", "-t", "1")
    with running(command, environment, tmp_path) as program:
        program.wait_for("Worker has been shut down")
        # Its master takes what ended by itself for a failure, and ends too.
        program.wait_exit()
    assert "Error" not in program.text()


def test_after_sighup_workers_are_started_again(environment: dict[str, str], tmp_path: Path) -> None:
    with running(WORKERS, environment, tmp_path) as program:
        program.wait_for("Worker process is ready", 2)
        os.kill(program.process.pid, signal.SIGHUP)
        program.wait_for("Worker process is ready", 4)
        os.killpg(program.process.pid, signal.SIGTERM)
        assert program.wait_exit() == 0


def test_a_stop_that_does_not_end_is_ended_and_the_log_shows_where_it_was(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = ("dramatiq", "relay.workers", "tests.process.stop_app", "-p", "1", "-t", "1")
    with running((*command, "--worker-shutdown-timeout", "100"), environment, tmp_path) as program:
        program.wait_for("Worker process is ready")
        os.kill(program.process.pid, signal.SIGTERM)
        assert program.wait_exit() == 1
    assert "did not stop in time" in program.text()
    assert "in before_worker_shutdown" in program.text()


def test_a_thread_that_begins_late_is_stopped_too(request: pytest.FixtureRequest) -> None:
    """Dramatiq's flag says that a thread runs from when it begins, whatever it was told before."""
    broker, may_begin, stopping = StubBroker(middleware=[]), threading.Event(), threading.Event()
    logger = logging.getLogger("dramatiq.worker.WorkerThread")
    begins = logging.Filter()
    begins.filter = lambda record: "Running" not in record.msg or may_begin.wait(PATIENCE_SECONDS)  # type: ignore[method-assign]

    class Stopping(dramatiq.Middleware):
        def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
            stopping.set()

    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addFilter(begins)
    request.addfinalizer(partial(logger.removeFilter, begins))
    request.addfinalizer(partial(logger.setLevel, level))
    for each in (Stopping(), WorkerStop()):
        broker.add_middleware(each)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    stop = threading.Thread(target=worker.stop, daemon=True)
    stop.start()
    assert stopping.wait(PATIENCE_SECONDS)
    may_begin.set()
    stop.join(PATIENCE_SECONDS)
    assert not stop.is_alive() and not worker.workers[0].is_alive()


def test_told_before_it_listens_it_takes_the_second_signal_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        for number in SIGNALS:  # Dramatiq's, when it was told before
            signal.signal(number, lambda *_: sys.exit(1))
        WorkerStop().hear()
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert ended == [128 + signal.SIGTERM]
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_asked_by_many_threads_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: told.append(number))
    stop = WorkerStop()
    threads = [threading.Thread(target=stop.ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [signal.SIGTERM]
