"""Apache Kafka for tests, as tests/services/install-kafka fetched it: one broker, its own controller; or three."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from relay.local.server_process import free_port
from tests.services.kafka import ROOT, USER, KafkaServer
from tests.services.unavailable import unavailable

# Resolved: an archive of classes counts only for jars at the same place.
INSTALLED = (ROOT / ".cache" / "kafka").resolve()
# Half of what a broker does until it serves is to load classes. The first one that stops leaves them, loaded, to all
# that start later; a JVM that the file is not of passes over it.
_CLASSES = INSTALLED / "classes.jsa"

# As a JVM ends on SIGTERM.
_STOPPED = 143

# 16 bytes in base64, as Kafka writes such an id.
_CLUSTER = "tide-relay-tests-kafkA"
# A JVM that starts fast and stays small. Warnings are all that it logs.
_JAVA_OPTIONS = (
    "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)  # fmt: skip
_SETTINGS: dict[str, Any] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INSIDE",
    "num.network.threads": 2,
    "num.io.threads": 2,
    "log.cleaner.dedupe.buffer.size": 4 << 20,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    # So long is one that was killed kept out, which still counts as alive.
    "broker.session.timeout.ms": 1000,
    "broker.heartbeat.interval.ms": 100,
}

_REPLICATED: dict[str, Any] = {
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
}


class ApacheKafka(KafkaServer):
    """As `KafkaServer`, and the real one: it takes two seconds to start, and two to start again after a kill."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL
    node = 1
    controllers: Mapping[int, int] | None = None
    """The port of the controller of each node; None: this one is alone."""

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        program = _java()
        if program is None:
            unavailable("Apache Kafka is not installed (make services-kafka, with Java 17 and Maven)")
        java = [program, *_JAVA_OPTIONS, "-cp", f"{INSTALLED}/libs/*"]
        left = _CLASSES.exists()
        if left:
            java.append(f"-XX:SharedArchiveFile={_CLASSES}")
        settings = self.data_dir / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        if not (self.data_dir / "log" / "meta.properties").exists():
            command = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(settings)]
            with self.open_log() as log:
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60)
        archive = [] if left else [f"-XX:ArchiveClassesAtExit={self._own_classes}"]
        return [*java, *archive, "kafka.Kafka", str(settings)], {"cwd": self.data_dir}

    def stop(self) -> None:
        process = self._process
        super().stop()
        # One that had to be killed may have left half of it.
        if process and process.returncode == _STOPPED and self._own_classes.exists():
            # Beside its place first: it may come from another file system.
            beside = _CLASSES.with_name(f"{_CLASSES.name}.{os.getpid()}.new")
            shutil.move(self._own_classes, beside)
            beside.replace(_CLASSES)

    @property
    def _own_classes(self) -> Path:
        return self.data_dir / "classes.jsa"

    def answers(self) -> bool:
        """Not before each partition is served again."""
        if not super().answers():
            return False
        client = Consumer(self.access | {"group.id": "none"})
        try:
            found = client.list_topics(timeout=1)
            places = [(name, number) for name, topic in found.topics.items() for number in topic.partitions]
            asked = [TopicPartition(*place, OFFSET_BEGINNING) for place in places]
            return bool(found.brokers) and all(at.error is None for at in client.offsets_for_times(asked, timeout=1))
        except KafkaException:
            return False
        finally:
            client.close()

    def _settings(self) -> dict[str, Any]:
        inside, alone = (self._keep(name, str(free_port())) for name in ("inside-port", "controller-port"))
        controllers = self.controllers or {self.node: int(alone)}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        controller = controllers[self.node]
        clients = self.access["security.protocol"]
        listeners = f"CLIENTS://127.0.0.1:{self.port},INSIDE://127.0.0.1:{inside}"
        replicas = _REPLICATED if len(controllers) > 1 else {}
        return _SETTINGS | replicas | self._access_settings() | {
            "node.id": self.node,
            "controller.quorum.voters": voters,
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": f"CLIENTS:{clients},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.data_dir / "log",
            "auto.create.topics.enable": str(self._auto_create).lower(),
        }  # fmt: skip

    def _access_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self._secured:
            module = "org.apache.kafka.common.security.plain.PlainLoginModule"
            settings["listener.name.clients.sasl.enabled.mechanisms"] = "PLAIN"
            settings["listener.name.clients.plain.sasl.jaas.config"] = (
                f'{module} required user_{USER}="{self.password}";'
            )
        if self._certificate:
            store = self.data_dir / "certificate.pem"
            cert, key = (Path(path).read_text() for path in self._certificate)
            store.write_text(key + cert)
            settings |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": store}
        return settings


class KafkaCluster(KafkaServer):
    """Three brokers of Apache Kafka, and every topic on each of them. It serves while one is killed."""

    replicas = 3

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        controllers = {number: free_port() for number in (1, 2, 3)}
        self.nodes: list[ApacheKafka] = []
        for number in controllers:
            node = ApacheKafka(data_dir / str(number))
            node.node, node.controllers = number, controllers
            self.nodes.append(node)

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def start(self) -> Self:
        """All at once: none serves before two are there."""
        self.data_dir.mkdir(exist_ok=True)
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(node.start) for node in self.nodes]:
                started.result()
        return self

    def stop(self) -> None:
        """There is nothing to keep, and the last of them would wait for the others."""
        self.kill()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def leader(self, topic: str) -> ApacheKafka:
        """Of its first partition."""
        found = AdminClient(self.access).list_topics(topic, timeout=10).topics[topic].partitions[0]
        return self.nodes[found.leader - 1]


def installed() -> bool:
    return _java() is not None


def _java() -> str | None:
    """The one to run it with; None if one of them is missing."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    return found if (INSTALLED / "libs").is_dir() else None
