"""With logs in JSON, programs write nothing else: not at their start, not while they fail, not at their end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedRedis
from tests.paths import REACH, ROOT
from tests.services.postgres import Database
from tests.waiting import wait_until

WORKERS = (sys.executable, "-m", "relay.cli", "workers", "--processes", "1", "--threads", "2")
SCHEDULER = (sys.executable, "-m", "scheduler.cli")


def _environment(url: str, broker: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "RELAY_" not in name}
    return kept | REACH | {
        "PYTHONPATH": str(ROOT), "RELAY_POSTGRES_URL": url, "RELAY_BROKER_URL": broker, "RELAY_LOG_FORMAT": "json",
        "RELAY_WORKER_METRICS_ADDR": "127.0.0.1:0", "RELAY_METRICS_ADDR": "127.0.0.1:0",
    } | more  # fmt: skip


def test_every_line_of_workers_and_scheduler_is_json_while_a_pipeline_lacks_its_password(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """And that it lacks it is said once, with what to do, however often it is tried."""
    config = {"sink_type": "redis", "url": f"redis://127.0.0.1:{redis_server.port}", "stream": "s"}
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
        connection.execute("select tide.relay_set_outbox('p', 'orders', 'p', %s::jsonb)", [json.dumps(config)])
        connection.execute("select tide.outbox_publish('orders', '{}', '{}')")
        given = _environment(database.url, redis_server.url)
        log = tmp_path / "log"
        with log.open("w") as output:
            programs = [
                subprocess.Popen(command, cwd=tmp_path, env=given, stdout=output, stderr=output)
                for command in (WORKERS, SCHEDULER)
            ]
            try:
                tried = "select coalesce(max(failures), 0) >= 4 from tide.drain"
                wait_until(lambda: connection.execute(tried).fetchone() == (True,), 60, "it is tried four times")
            finally:
                for program in programs:
                    program.terminate()
                ended = [program.wait(60) for program in programs]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert ended == [0, 0] and {"dramatiq.MainProcess", "scheduler.main"} <= {line["logger"] for line in lines}
    [failed] = [line for line in lines if line["event"].startswith("drain failed")]
    assert "pipeline 'p'" in failed["reason"] and "name the user and the password" in failed["reason"]


@pytest.mark.parametrize("command", [WORKERS, SCHEDULER, (sys.executable, "-m", "relay.cli", "api")], ids=str)
def test_what_keeps_a_program_from_starting_is_one_line_of_json_too(command: tuple[str, ...], tmp_path: Path) -> None:
    given = _environment("postgresql://h/d", "redis://h", RELAY_CONNECT_TIMEOUT="soon")
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60, check=False)
    [line] = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, done.stdout, line["event"]) == (1, "", "cannot start")
    assert "RELAY_CONNECT_TIMEOUT='soon'" in line["reason"]


NOISE = """
import logging, sys, threading, warnings
from relay.process.logs import configure_logging
from relay.settings import Settings
configure_logging(Settings.load())
class Broken:
    def __del__(self):
        raise ValueError("in a finalizer")
def fail():
    raise ValueError("in a thread")
warnings.warn("from a library")
Broken()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
logging.getLogger("librdkafka").warning("from librdkafka")
raise ValueError("at the end")
"""


def test_warnings_finalizers_threads_and_an_uncaught_exception_are_lines_of_the_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISE], cwd=tmp_path, env=_environment("postgresql://h/d", "redis://h"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = "\n".join(str(json.loads(line)) for line in done.stderr.splitlines())
    for expected in ("from a library", "in a finalizer", "in a thread", "from librdkafka", "at the end"):
        assert expected in said
