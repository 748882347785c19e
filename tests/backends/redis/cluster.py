"""A Redis Cluster of two primaries, and whatever tests do to it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.crc import key_slot

from relay.local.server_process import free_port, port_is_free
from tests.backends.redis.server import DurableRedis
from tests.services.halt import halted
from tests.waiting import wait_until

SLOTS = 16384
# The nodes talk to each other on a port that is this much above their own.
_BUS = 10_000


class ClusterNode(DurableRedis):
    """Its password is that of the whole cluster."""

    settings = (
        DurableRedis.settings + "cluster-enabled yes\ncluster-node-timeout 5000\ncluster-require-full-coverage no\n"
    )

    def __init__(self, data_dir: Path, program: Path | None = None, password: str = "") -> None:
        super().__init__(data_dir, program)
        self.data_dir.mkdir(parents=True)
        ports = iter(free_port, 0)
        # Below the ports from which systems give to outgoing connections, the bus too.
        port = next(port for port in ports if port + _BUS < 32_000 and port_is_free(port + _BUS))
        self._keep("port", str(port))
        if password:
            self._keep("password", password)

    def client(self) -> "redis.Redis":
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, protocol=2, socket_timeout=20)


class RedisCluster:
    """`nodes[0]` has the lower half of the slots."""

    def __init__(self, folder: Path, program: Path | None = None) -> None:
        first = ClusterNode(folder / "0", program).start()
        second = ClusterNode(folder / "1", program, first.password).start()
        self.nodes = [first, second]
        self._share_slots()

    @property
    def password(self) -> str:
        return self.nodes[0].password

    @property
    def url(self) -> str:
        return ",".join(f"redis+cluster://:{self.password}@127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def pids(self) -> list[int]:
        return [node.pid for node in self.nodes if node.pid is not None]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        wait_until(self._agrees, what="the nodes of the cluster agree")

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def node_of(self, key: str) -> ClusterNode:
        return self.nodes[key_slot(key.encode()) >= SLOTS // 2]

    def key_on(self, number: int, name: str) -> str:
        """A key on that node, whose name begins so."""
        return next(key for n in range(1000) if self.node_of(key := f"{name}-{n}") is self.nodes[number])

    def stalled(self) -> contextlib.AbstractContextManager[None]:
        return halted(*self.pids)

    @contextlib.contextmanager
    def moved(self, key: str) -> Iterator[None]:
        """The slot of the key belongs to the other node within the context; what is written to it is lost."""
        here = self.node_of(key)
        there = self.nodes[1 - self.nodes.index(here)]
        self._give(key, there)
        try:
            yield
        finally:
            there.flush()
            self._give(key, here)

    def _give(self, key: str, owner: ClusterNode) -> None:
        with owner.client() as client:
            owner_id = client.execute_command("CLUSTER", "MYID").decode()
        for node in (owner, *self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", owner_id)

    def _share_slots(self) -> None:
        half = SLOTS // 2
        for node, slots in zip(self.nodes, (range(half), range(half, SLOTS)), strict=True):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        with self.nodes[0].client() as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[1].port)
        wait_until(self._agrees, timeout_seconds=30, what="the nodes of the cluster know each other")

    def _agrees(self) -> bool:
        for node in self.nodes:
            with node.client() as client:
                info = client.execute_command("CLUSTER", "INFO")
                text = info.decode() if isinstance(info, bytes) else str(info)
                slots = client.execute_command("CLUSTER", "SLOTS")
            if "ok" not in text.split("cluster_state")[1][:12] or len(slots) < len(self.nodes):
                return False
        return True
