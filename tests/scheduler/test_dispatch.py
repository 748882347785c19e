"""What the scheduler says of a broker that does not take drains."""

import pytest
import redis
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from relay.broker.factory import make_broker
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.dispatch import Dispatch
from tests.broker.brokers import drain


@pytest.fixture
def dispatch(redis_server):
    broker = make_broker(redis_server.url)
    yield Dispatch(broker, SchedulerMetrics(CollectorRegistry()))
    broker.close()


def test_each_reason_is_logged_once_and_that_it_is_over(redis_server, dispatch):
    with capture_logs() as logs, redis.Redis.from_url(redis_server.url) as client:
        assert dispatch.emit(drain(1), "forward")
        client.replicaof("127.0.0.1", 1)
        for number in range(2, 5):
            assert not dispatch.emit(drain(number), "forward")
            assert "it is a replica" in str(dispatch.trouble)
            dispatch.paused_until = 0.0
            dispatch.check_broker()
            dispatch.paused_until = 0.0
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 1)
        dispatch.check_broker()
        assert "it is out of memory" in str(dispatch.trouble)
        client.config_set("maxmemory", 0)
        assert dispatch.emit(drain(5), "forward")
        assert dispatch.trouble is None
    told = [(entry["event"], entry.get("code")) for entry in logs]
    refuses, takes = "broker does not take drains", "broker takes drains again"
    assert told == [(refuses, "read_only"), (refuses, "out_of_memory"), (takes, None)]
