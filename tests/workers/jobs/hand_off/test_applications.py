"""Jobs become messages of an application: real workers of Dramatiq and of Celery run them, from Redis and RabbitMQ."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.jobs.models import Claimed, Ended
from tests.backends.rabbitmq.harness import Broker
from tests.paths import ROOT
from tests.waiting import wait_until
from tests.workers.jobs.hand_off.jobs import ARGUMENTS, job
from workers.jobs.hand_off import HandOff

COMMANDS = {
    "dramatiq": ["dramatiq", "tests.workers.jobs.hand_off.dramatiq_app", "--processes", "1", "--threads", "1"],
    "celery": [
        "celery",
        "-A",
        "tests.workers.jobs.hand_off.celery_app",
        "worker",
        "--pool",
        "solo",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ],
}


@contextlib.contextmanager
def application(system: str, url: str, seen: Path, log: Path) -> Iterator[None]:
    """One worker process of it."""
    program, *arguments = COMMANDS[system]
    environment = os.environ | {"BROKER": url, "SEEN": str(seen), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def read(seen: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []


@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
@pytest.mark.parametrize("system", ["dramatiq", "celery"])
def test_an_application_runs_what_is_handed_off(request, run_dir, tmp_path, hand_off, system, server):
    """With its arguments and its id, which is the job's however often it is handed off."""
    url = request.getfixturevalue(f"{server}_server").url
    seen, log = tmp_path / "seen", tmp_path / "log"
    theirs = (
        {"dramatiq_namespace": "app"}
        if system == "dramatiq"
        else {"celery_key_prefix": "app:", "celery_priority_steps": [0, 5]}
    )
    sender = hand_off(**{f"{system}_url": url}, **theirs)
    urgent = {
        "dramatiq": {"options": '{"queue": "mail", "priority": 6, "dramatiq": {"max_age": 60000}}'},
        "celery": {
            "options": '{"queue": "mail", "priority": 6, "celery": {"expires": 3600, "time_limit": 9}}',
            "headers": '{"tenant": "acme"}',
        },
    }[system]
    jobs = [job(system), job(system, "{}"), job(system, **urgent, trace_id="abc")]
    if server == "rabbitmq":
        Broker(request.getfixturevalue("rabbitmq_server")).ask(lambda channel: channel.queue_delete("mail"))
        [early] = sender.send_many(jobs[:1])
        assert (early.outcome, early.code) == ("d", "unroutable")
        assert "job queue 'receipts'" in early.error and "no queue 'mail'" in early.error
    else:
        assert sender.send_many(jobs) == [Ended("s")] * 3
        assert sender.send_many(jobs[:1]) == [Ended("s")]

    with application(system, url, seen, log):
        if server == "rabbitmq":
            ended = wait_until(lambda: tried(sender, jobs), 30, "the application has declared its queue")
            assert ended == [Ended("s")] * 3
            assert sender.send_many(jobs[:1]) == [Ended("s")]
        times = {one.uuid: 1 for one in jobs}
        if (system, server) != ("dramatiq", "redis"):  # which knows a message that still waits
            times[jobs[0].uuid] = 2
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: len(read(seen)) >= sum(times.values()), 20)
    by_id = {one["id"]: one for one in read(seen)}
    assert Counter(one["id"] for one in read(seen)) == times, log.read_text()[-3000:]
    assert (by_id[jobs[0].uuid]["args"], by_id[jobs[0].uuid]["kwargs"]) == tuple(json.loads(ARGUMENTS).values())
    assert (by_id[jobs[1].uuid]["args"], by_id[jobs[1].uuid]["kwargs"]) == ([], {})
    options = by_id[jobs[2].uuid]["options"]
    if system == "dramatiq":
        assert options.items() >= {"broker_priority": 6, "max_age": 60000, "trace_id": "abc"}.items()
    else:
        expires = "2030-01-01T01:00:00+00:00"
        expected = {"priority": 6, "expires": expires, "timelimit": [9.0, None], "trace_id": "abc", "tenant": "acme"}
        assert options == expected


def tried(sender: HandOff, jobs: list[Claimed]) -> list[Ended] | None:
    """What became of them, once there is a queue."""
    ended = sender.send_many(jobs)
    return None if any(one.code == "unroutable" for one in ended) else ended
