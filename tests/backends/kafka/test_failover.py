"""Three brokers of Apache Kafka, of which one is killed under load."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_steps import Drainer, Inbox, messages
from tests.backends.source_steps import opened as opened_source
from tests.backends.steps import Feeder, assert_first_arrivals_in_order, numbers, opened
from tests.services.apache_kafka import KafkaCluster

pytestmark = pytest.mark.xdist_group("kafka-cluster")


@pytest.fixture(scope="module")
def _cluster(run_dir: Path) -> Iterator[KafkaCluster]:
    with KafkaCluster(run_dir / "kafka-cluster") as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: KafkaCluster) -> KafkaCluster:
    return _cluster.start()


@pytest.mark.parametrize("transactional", [False, True])
def test_what_a_sink_reports_delivered_outlives_the_leader(cluster: KafkaCluster, transactional: bool) -> None:
    harness = KafkaHarness(cluster, transactional=transactional)
    with opened(harness, timeout_ms=5000) as sink, Feeder(harness, sink) as feeder:
        feeder.wait_for(delivered=200)
        leader = cluster.leader(harness.topic)
        leader.kill()
        feeder.wait_for(feeder.delivered + 1000)
        leader.start()
        feeder.wait_for(feeder.delivered + 200)
    arrived = numbers(harness)
    assert set(range(1, feeder.delivered + 1)) <= set(arrived), "reported delivered, and missing"
    assert_first_arrivals_in_order(harness, arrived)


def test_a_source_goes_on_after_its_positions_when_the_leader_is_killed(cluster: KafkaCluster) -> None:
    harness = KafkaSourceHarness(KafkaHarness(cluster))
    inbox = Inbox()
    harness.send(messages(1, 600))
    with opened_source(harness, timeout_ms=5000) as source, Drainer(source, inbox) as drainer:
        drainer.wait_for(written=100)
        cluster.leader(harness.topic).kill()
        harness.send(messages(601, 600))
        drainer.wait_for(written=1200)
    assert sorted(inbox.numbers()) == list(range(1, 1201))
    assert inbox.repeats == 0
