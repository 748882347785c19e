"""The metrics of the workers, across the real processes of the `dramatiq` command."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from relay.broker.factory import make_broker
from relay.broker.queues import enqueue_drain
from relay.local.server_process import free_port
from relay.models import Drain
from relay.process.worker_metrics import collect
from tests.paths import ROOT
from tests.waiting import wait_until

START_SECONDS = 60


class Workers:
    """A running `dramatiq` command of two processes, and what it serves."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path):
        self.process, self.port, self.log = process, port, log

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 if nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> str:
        return self.get("/metrics")[1]

    def value(self, series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def published(self, pipeline: str) -> float:
        series = f'direction="forward",pipeline="{pipeline}",sink_type="memory"'
        return self.value(f"tide_relay_messages_published_total{{{series}}}")


@contextmanager
def workers(
    redis_url: str,
    folder: Path,
    port: int,
    *arguments: str,
    postgres_url: str = "postgresql://not-used",
    given: str = "",
) -> Iterator[Workers]:
    log = folder / f"workers-{time.monotonic_ns()}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    environment |= {
        "TMPDIR": str(folder),
        "RELAY_POSTGRES_URL": postgres_url,
        "RELAY_BROKER_URL": redis_url,
        "RELAY_WORKER_METRICS_ADDR": f"127.0.0.1:{port}",
        "RELAY_LOG_FORMAT": "json",
        "dramatiq_restart_delay": "200",  # milliseconds until a consumer that lost its broker reconnects
    }
    environment |= {"PROMETHEUS_MULTIPROC_DIR": given} if given else {}
    command = [sys.executable, "-m", "dramatiq", "tests.process.metrics_app", "-p", "2", "-t", "2", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield Workers(process, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def send(url: str, pipeline: str, count: int = 1, *, lease_ms: int = 60_000) -> None:
    broker = make_broker(url)
    for number in range(count):
        enqueue_drain(broker, Drain(pipeline, 1, number, lease_ms), "forward")
    broker.close()


def test_the_numbers_of_all_processes_are_added_up_and_are_served_until_the_master_is_killed(redis_server, tmp_path):
    send(redis_server.url, "old", lease_ms=1)
    with workers(redis_server.url, tmp_path, free_port()) as running:
        send(redis_server.url, "orders", 40)
        wait_until(lambda: running.published("orders") == 40, START_SECONDS, "all 40 drains are counted")
        assert running.value('tide_relay_stale_drains_total{pipeline="old"}') == 1
        wait_until(lambda: "tide_relay_drains_running 0.0" in running.metrics(), what="no drain is running")
        assert '"level": "info"' in running.log.read_text()
        running.process.kill()
        wait_until(lambda: not running.metrics(), 20, "they are not served any more")
        os.killpg(running.process.pid, signal.SIGKILL)


def test_a_new_run_starts_from_zero_and_removes_the_folder_of_the_last(redis_server, tmp_path):
    """The first forks, and waits for its port; the second spawns."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with workers(redis_server.url, tmp_path, port) as running:
            wait_until(lambda: "RELAY_WORKER_METRICS_ADDR" in running.log.read_text(), START_SECONDS, "it is told")
            assert f"127.0.0.1:{port}: Address already in use" in running.log.read_text()
            send(redis_server.url, "orders", 3)
            taken.close()
            wait_until(lambda: running.published("orders") == 3, START_SECONDS, "metrics are served after all")
            assert len(list(tmp_path.glob("tide-relay-metrics-*"))) == 1
    with workers(redis_server.url, tmp_path, free_port(), "--use-spawn") as running:
        send(redis_server.url, "orders", 40)
        wait_until(lambda: running.published("orders") == 40, START_SECONDS, "all 40 drains are counted, and no others")
        assert len(list(tmp_path.glob("tide-relay-metrics-*"))) == 1


def test_a_folder_from_outside_is_cleared_by_the_next_run_and_never_while_others_use_it(redis_server, tmp_path):
    given = tmp_path / "given"
    with workers(redis_server.url, tmp_path, free_port(), given=str(given)) as first:
        send(redis_server.url, "orders", 3)
        wait_until(lambda: first.published("orders") == 3, START_SECONDS, "three drains are counted")
        with workers(redis_server.url, tmp_path, free_port(), given=str(given)) as second:
            wait_until(lambda: second.get("/metrics")[0] == 200, START_SECONDS, "the second serve metrics")
            assert "is in use by other workers" in second.log.read_text()
            assert first.published("orders") == 3
        first.process.kill()  # as a container that ran out of memory is killed: nothing cleans up
        os.killpg(first.process.pid, signal.SIGKILL)
        # What is killed while it waits can take a drain until Redis sees its connections closed.
        with redis.Redis.from_url(redis_server.url) as seen:
            wait_until(lambda: not [one for one in seen.client_list() if one["cmd"] == "blpop"], what="no one waits")
    assert list(given.glob("counter_*.db"))
    (given / "mine.txt").write_text("not of the workers")
    with workers(redis_server.url, tmp_path, free_port(), given=str(given)) as third:
        send(redis_server.url, "orders", 3)
        wait_until(lambda: third.published("orders") == 3, START_SECONDS, "three drains are counted, and no others")
    assert (given / "mine.txt").exists()
    assert not list(tmp_path.glob("tide-relay-metrics-*"))


def test_a_killed_worker_is_still_counted_but_runs_nothing_any_more(redis_server, tmp_path):
    with workers(redis_server.url, tmp_path, free_port()) as running:
        send(redis_server.url, "slow", 1)
        wait_until(lambda: running.value("tide_relay_drains_running") == 1, START_SECONDS, "it runs")
        (busy,) = [path for path in tmp_path.glob("*/counter_*.db") if b"slow" in path.read_bytes()]
        os.kill(int(busy.stem.rpartition("_")[2]), signal.SIGKILL)
        running.process.wait(30)  # Dramatiq ends the other processes with it
    text = collect(busy.parent).body.decode()
    assert "tide_relay_drains_running" not in text
    assert 'tide_relay_messages_published_total{direction="forward",pipeline="slow",sink_type="memory"} 1.0' in text
