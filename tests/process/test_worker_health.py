"""What the workers say at /health and /ready, across the real processes of the `dramatiq` command."""

import json
import os
import signal
import time

import pytest
from redis import Redis

from relay.local.server_process import free_port
from relay.local.servers import EmbeddedPostgres
from relay.process import worker_health
from relay.process.worker_health import PREFIX, WorkerHealth
from relay.settings import Settings
from tests.process.test_worker_metrics import START_SECONDS, workers
from tests.services.halt import halted
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(400)


def ready(running) -> bool:
    return running.get("/ready")[0] == 200


def reasons(running, path: str = "/ready") -> str:
    return str(json.loads(running.get(path)[1] or "{}").get("reasons"))


@pytest.fixture
def own_postgres(own_dirs):
    with EmbeddedPostgres(own_dirs()) as server:
        yield server


def test_workers_are_healthy_without_their_servers_and_ready_only_with_them(own_postgres, own_redis, tmp_path):
    redis = own_redis()
    redis.start()
    with workers(redis.url, tmp_path, free_port(), postgres_url=own_postgres.url) as running:
        wait_until(lambda: ready(running), START_SECONDS, "they are ready")
        assert running.get("/ready")[1] == '{"ready":true}'
        status, body = running.get("/health")
        assert (status, json.loads(body)["status"], json.loads(body)["processes"]) == (200, "healthy", 2)

        own_postgres.stop()
        wait_until(lambda: "PostgreSQL" in reasons(running), START_SECONDS, "PostgreSQL is missed")
        assert running.get("/health")[0] == 200
        own_postgres.start()
        wait_until(lambda: ready(running), START_SECONDS, "they are ready again")

        with halted(own_postgres.pid):
            wait_until(lambda: "PostgreSQL" in reasons(running), START_SECONDS, "one that says nothing is missed too")
        wait_until(lambda: ready(running), START_SECONDS, "they are ready again")

        redis.stop()
        wait_until(lambda: "broker" in reasons(running), START_SECONDS, "the broker is missed")
        wait_until(lambda: "queue tide.forward" in reasons(running), START_SECONDS, "the consumers say so too")
        assert running.get("/health")[0] == 200
        assert redis.password not in reasons(running) and own_postgres.password not in reasons(running)
        redis.start()
        wait_until(lambda: ready(running), START_SECONDS, "they are ready again")

        with Redis.from_url(redis.url) as client:
            client.replicaof("127.0.0.1", 1)
            wait_until(
                lambda: "it is a replica" in reasons(running), START_SECONDS, "a broker that takes no writes too"
            )
            client.replicaof("NO", "ONE")
        wait_until(lambda: ready(running), START_SECONDS, "they are ready again")


def test_a_worker_process_that_is_stuck_is_unhealthy_until_it_moves(redis_server, tmp_path, monkeypatch):
    with workers(redis_server.url, tmp_path, free_port()) as running:
        wait_until(lambda: running.get("/health")[0] == 200, START_SECONDS, "they are healthy")
        (folder,) = tmp_path.glob("tide-relay-metrics-*")
        monkeypatch.setattr(worker_health, "SILENT_SECONDS", 2.0)
        monkeypatch.setattr(worker_health, "processes_asked_for", lambda: 2)
        health = WorkerHealth(folder, Settings.load(postgres_url="postgresql://not-used"))
        wait_until(lambda: health.health().status == 200, START_SECONDS, "they are healthy")
        stuck = int(next(folder.glob(f"{PREFIX}*")).name.removeprefix(PREFIX))
        os.kill(stuck, signal.SIGSTOP)
        try:
            words = f"worker process {stuck} has been silent for"
            wait_until(lambda: words in health.health().body.decode(), START_SECONDS, "it is missed")
            assert health.health().status == 503
        finally:
            os.kill(stuck, signal.SIGCONT)
        wait_until(lambda: health.health().status == 200, START_SECONDS, "it moves again")


def test_a_worker_process_that_died_is_missed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_health, "processes_asked_for", lambda: 2)
    (tmp_path / f"{PREFIX}{os.getpid()}").write_text(
        json.dumps({"pid": os.getpid(), "at": time.monotonic(), "lacking": []})
    )
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    (tmp_path / f"{PREFIX}{gone}").write_text(json.dumps({"pid": gone, "at": time.monotonic(), "lacking": []}))
    answer = WorkerHealth(tmp_path, Settings.load(postgres_url="postgresql://not-used")).health()
    assert answer.status == 503
    assert json.loads(answer.body)["reasons"] == ["1 of 2 worker processes are there"]
