"""What `dramatiq` runs in the tests of metrics and health: workers whose drains do nothing but count themselves.

They beat, and ask the servers outside, more often than others: a test does not need to wait for it.
"""

from relay.process.multiprocess import prepare_multiprocess

folder = prepare_multiprocess()

import threading  # noqa: E402  after the folder is named, as in the entry point of the workers

import dramatiq  # noqa: E402

from relay.broker.factory import make_broker  # noqa: E402
from relay.broker.queues import DRAIN_ACTOR, DRAIN_QUEUES, drain_from  # noqa: E402
from relay.process import health, worker_health  # noqa: E402
from relay.process.logs import configure_logging  # noqa: E402
from relay.process.metrics.workers import worker_metrics  # noqa: E402
from relay.process.worker_health import Heartbeat  # noqa: E402
from relay.process.worker_metrics import WorkerMetricsEndpoint, serve_worker_metrics  # noqa: E402
from relay.settings import Settings  # noqa: E402

worker_health.BEAT_SECONDS = health.FRESH_SECONDS = 0.2


class Endpoint(WorkerMetricsEndpoint):
    @property
    def forks(self):
        return [serve]


def serve() -> int:
    """In a process that has imported this file: Dramatiq knows what it forks by the name of the module."""
    return serve_worker_metrics()


settings = Settings.load()
configure_logging(settings)
broker = make_broker(settings.broker_url, middleware=[Endpoint(), Heartbeat(folder)])
dramatiq.set_broker(broker)


def drain(*args: object) -> None:
    pipeline = drain_from(args).pipeline
    with worker_metrics().drains_running.track_inprogress():
        worker_metrics().messages_published.labels(pipeline, "forward", "memory").inc()
        if pipeline == "slow":
            threading.Event().wait(60)


dramatiq.actor(broker=broker, actor_name=DRAIN_ACTOR, queue_name=DRAIN_QUEUES["forward"])(drain)
