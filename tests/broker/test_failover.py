"""A Redis that answers and takes no writes: a replica after a failover, a node of a cluster, a full memory."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from relay.broker.factory import depths, make_broker, ping
from relay.broker.queues import enqueue_drain
from relay.broker.redis_client import code_of, described
from relay.errors import NotConnected
from relay.local.servers import EmbeddedRedis
from tests.backends.redis.cluster import ClusterNode
from tests.broker.brokers import DEADLINE_SECONDS, FORWARD, IDLE_TIMEOUT_MS, REVERSE, drain, numbers, running_worker
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import running_fleet
from tests.services.proxy import Proxy
from tests.waiting import wait_until


def client(server: EmbeddedRedis) -> "redis.Redis":
    return redis.Redis(host="127.0.0.1", port=server.port, password=server.password, protocol=2, socket_timeout=20)


class Pair:
    """A primary and its replica behind one name, which `failover` makes lead to the other."""

    def __init__(self, proxy: Proxy, first: EmbeddedRedis, second: EmbeddedRedis) -> None:
        self.proxy = proxy
        self.url = proxy.through(first.url)
        self.servers = [first, second]
        self._follow()

    @property
    def replica(self) -> EmbeddedRedis:
        return self.servers[1]

    def failover(self) -> None:
        """Connections to the server that was the primary stay."""
        self.servers.reverse()
        with client(self.servers[0]) as promoted:
            promoted.execute_command("REPLICAOF", "NO", "ONE")
        self.proxy.lead_to(self.servers[0].port)
        self._follow()

    def demote(self) -> None:
        """The primary is a replica, and the name still leads to it."""
        self.servers.reverse()
        with client(self.servers[0]) as promoted:
            promoted.execute_command("REPLICAOF", "NO", "ONE")
        self._follow()

    def _follow(self) -> None:
        primary, replica = self.servers
        with client(primary) as asked:
            asked.config_set("repl-diskless-sync-delay", 0)
        with client(replica) as asked:
            asked.config_set("masterauth", primary.password)
            asked.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            wait_until(lambda: asked.info("replication")["master_link_status"] == "up", what="the replica follows")


@pytest.fixture
def pair(own_redis, proxy) -> Pair:
    first, second = own_redis(), own_redis()
    with client(second) as asked:
        asked.config_set("requirepass", first.password)
    second.password = first.password
    return Pair(proxy(first.url), first, second)


@pytest.fixture
def node(own_dirs, redis_program: Path | None) -> Iterator[EmbeddedRedis]:
    """A cluster of one, which has all slots."""
    with ClusterNode(own_dirs(), redis_program) as server:
        with client(server) as asked:
            asked.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            wait_until(lambda: is_cluster(asked), what="the cluster is there")
        yield server


def is_cluster(asked: "redis.Redis") -> bool:
    return "ok" in str(asked.execute_command("CLUSTER", "INFO")).split("cluster_state")[1][:12]


@contextmanager
def full(server: EmbeddedRedis) -> Iterator[None]:
    with client(server) as asked:
        asked.config_set("maxmemory", 1)
        try:
            yield
        finally:
            asked.config_set("maxmemory", 0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What our own code logs, and what Dramatiq does."""
    with capture_logs() as logs:
        handler = logging.Handler(logging.WARNING)
        note = {"log_level": "dramatiq"}
        monkeypatch.setattr(handler, "emit", lambda record: logs.append({"event": record.getMessage(), **note}))
        logging.getLogger().addHandler(handler)
        try:
            yield logs
        finally:
            logging.getLogger().removeHandler(handler)


def complaints(said: list[Any]) -> list[str]:
    """The codes of what is worse than information; all of an entry that has none."""
    return [entry.get("code", str(entry)) for entry in list(said) if entry["log_level"] not in ("info", "debug")]


def test_workers_and_schedulers_follow_a_failover_and_back(pair, said):
    seen: Queue = Queue()
    broker = make_broker(pair.url)
    with running_worker(pair.url, seen.put, also=[REVERSE], idle_timeout_ms=IDLE_TIMEOUT_MS) as worker:
        for number in range(1, 7, 2):
            enqueue_drain(broker, drain(number), "forward")
            assert numbers(seen, 1) == [number]
            ping(broker)
            pair.failover()
            enqueue_drain(broker, drain(number + 1), "forward")
            assert numbers(seen, 1) == [number + 1]
            assert depths(broker)[0].consumers in (0, 1)
            wait_until(lambda: all(each.consumer.is_connected for each in worker.consumers.values()), what="all are")
    broker.close()
    assert set(complaints(said)) == {"read_only"}
    assert len(complaints(said)) <= 3


def test_a_fleet_delivers_through_failovers_and_shows_no_traceback(pair, database, tmp_path):
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    pipelines.make("orders", visibility_timeout_ms=600_000)
    with running_fleet(database.fleet_url(), pair.url, tmp_path / "fleet") as fleet:
        processes = [fleet.scheduler(), fleet.workers("workers")]
        for _ in range(3):
            pipelines.wait_delivered("orders", pipelines.publish("orders", 3), 60)
            pair.failover()
        pipelines.wait_delivered("orders", pipelines.publish("orders", 3), 60)
        # The same server is a replica for a while, and loses what it had.
        with client(pair.servers[0]) as asked, client(pair.replica) as empty:
            empty.execute_command("REPLICAOF", "NO", "ONE")
            empty.flushall()
            asked.config_set("masterauth", pair.replica.password)
            asked.execute_command("REPLICAOF", "127.0.0.1", pair.replica.port)
            last = pipelines.publish("orders", 3)
            for process in processes:
                wait_until(lambda: "it is a replica" in process.get("/ready")[1], 60, "it is said")  # noqa: B023
            asked.execute_command("REPLICAOF", "NO", "ONE")
        pipelines.wait_delivered("orders", last, 60)
        for process in processes:
            process.wait_ready()
            assert "Traceback" not in process.text()
            process.terminate()
            process.wait_exit()


def test_an_acknowledgement_that_a_replica_refuses_is_sent_to_the_primary(pair):
    taken, gate = threading.Event(), threading.Event()

    def work(_):
        taken.set()
        gate.wait(DEADLINE_SECONDS)

    broker = make_broker(pair.url)
    with running_worker(pair.url, work, threads=1, idle_timeout_ms=500):
        enqueue_drain(broker, drain(1), "forward")
        assert taken.wait(DEADLINE_SECONDS)
        with client(pair.replica) as asked:
            wait_until(lambda: asked.hlen(f"tide:{FORWARD}.msgs") == 1, what="the replica has it")
            pair.failover()
            gate.set()
            wait_until(lambda: asked.hlen(f"tide:{FORWARD}.msgs") == 0, what="it is acknowledged")
    broker.close()


def refused(url: str) -> NotConnected:
    broker = make_broker(url)
    with pytest.raises(NotConnected) as enqueued:
        enqueue_drain(broker, drain(1), "forward")
    with pytest.raises(NotConnected) as pinged:
        ping(broker)
    assert enqueued.value.code == pinged.value.code
    broker.close()
    return pinged.value


def test_a_replica_is_named(pair, said):
    pair.demote()
    with running_worker(pair.url, print, also=[REVERSE], idle_timeout_ms=100) as worker:
        error = refused(pair.url)
        assert error.code == "read_only"
        assert "it is a replica, which takes no writes" in str(error)
        assert pair.servers[0].password not in str(error)
        named_once(worker, said, "read_only")


def test_a_node_of_a_cluster_is_named_although_it_has_the_keys(node, said):
    with running_worker(node.url, print, also=[REVERSE], idle_timeout_ms=100) as worker:
        error = refused(node.url)
        assert error.code == "cluster"
        assert "it is a node of a Redis Cluster" in str(error)
        named_once(worker, said, "cluster")


def test_a_full_memory_is_named_and_work_goes_on_when_there_is_room(own_redis, said):
    server = own_redis()
    seen: Queue = Queue()
    broker = make_broker(server.url)
    with running_worker(server.url, seen.put, also=[REVERSE], idle_timeout_ms=100) as worker:
        with full(server):
            error = refused(server.url)
            assert error.code == "out_of_memory"
            assert "it is out of memory" in str(error)
            named_once(worker, said, "out_of_memory")
        ping(broker)
        enqueue_drain(broker, drain(2), "forward")
        assert numbers(seen, 1) == [2]
        wait_until(lambda: [each["event"] for each in list(said)][-1] == "broker can be used again", what="it says so")
    broker.close()


def named_once(worker, said, code: str) -> None:
    """By both consumers of the process together, however often they try."""
    consumers = list(worker.consumers.values())
    wait_until(
        lambda: all(each.consumer and not each.consumer.is_connected for each in consumers), what="both are not served"
    )
    tried = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > tried, what="they try again")
    assert complaints(said) == [code]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        # Of Redis 6 and of Redis 7, from scripts.
        ("Error running script (call to f_ab): @user_script:14: @user_script: 14: -READONLY You can't ", "read_only"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", "unavailable"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "unavailable"),
        ("NOREPLICAS Not enough good replicas to write.", "not_replicated"),
        ("BUSY Redis is busy running a script.", "unavailable"),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", "read_only"),
        ("ERR unknown command", "refused"),
    ],
)
def test_what_an_answer_means(answer, code):
    error = redis.exceptions.ResponseError(answer)
    assert code_of(error) == code
    assert answer in described(error)
