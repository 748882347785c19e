"""The two brokers of the tests of Kafka: a small one of our own, and Apache Kafka itself.

Ours starts at once, and runs everything. What a real one could see otherwise runs on both.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.kafka import KafkaServer

ours_alone = pytest.mark.parametrize("each_kafka", ["kafka_server"], indirect=True)
"""For what takes a server that is stopped, and a client that would do the same with any."""


@pytest.fixture(scope="session")
def _secured_kafka(run_dir: Path) -> Iterator[KafkaServer]:
    with KafkaServer(run_dir / "kafka-secured", secured=True) as server:
        yield server


@pytest.fixture
def secured_kafka(_secured_kafka: KafkaServer) -> KafkaServer:
    """Ours, which asks for credentials. Topics of other tests may be there."""
    return _secured_kafka.start()


@pytest.fixture(params=["kafka_server", "apache_kafka"])
def each_kafka(request: pytest.FixtureRequest, run_dir: Path) -> KafkaServer:
    """A test runs on both; on one of them alone with `ours_alone`."""
    server: KafkaServer = request.getfixturevalue(request.param)
    return server
