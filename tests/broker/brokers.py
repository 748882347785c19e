"""Drains sent, and workers that take them. Each worker has a broker of its own, as every process has.

Idle workers are given an idle timeout far beyond the deadline of a test, so that whatever arrives was not polled for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Queue

import dramatiq
import pytest

from relay.broker.factory import make_broker, serve
from relay.broker.queues import DRAIN_ACTOR, DRAIN_QUEUES, drain_from, enqueue_drain
from relay.broker.redis_consumer import WakingConsumer
from relay.errors import NotConnected
from relay.local.server_process import ServerProcess
from relay.models import Drain

IDLE_TIMEOUT_MS = 600_000
DEADLINE_SECONDS = 20
LEASE_MS = 60_000
FORWARD, REVERSE = DRAIN_QUEUES["forward"], DRAIN_QUEUES["reverse"]


def drain(number: int, pipeline: str = "orders", lease_ms: int = LEASE_MS) -> Drain:
    return Drain(pipeline, epoch=1, number=number, lease_ms=lease_ms)


@contextmanager
def running_worker(
    url: str,
    work: Callable[[Drain], None],
    *,
    threads: int = 4,
    idle_timeout_ms: int = IDLE_TIMEOUT_MS,
    also: Sequence[str] = (),
    identity: Callable[[], str] = lambda: "",
    refused: Callable[[str], None] = lambda _: None,
) -> Iterator[dramatiq.Worker]:
    broker = make_broker(url)
    serve(broker, identity, refused)

    def act(*args):
        work(drain_from(args))

    dramatiq.actor(broker=broker, actor_name=DRAIN_ACTOR, queue_name=FORWARD)(act)
    for name in also:
        broker.declare_queue(name)
    worker = dramatiq.Worker(broker, worker_timeout=idle_timeout_ms, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        # With the long timeout the threads sit it out, as daemons; they take nothing any more.
        worker.stop(timeout=50 if idle_timeout_ms == IDLE_TIMEOUT_MS else DEADLINE_SECONDS * 1000)
        for thread in worker.consumers.values():
            if isinstance(thread.consumer, WakingConsumer):
                thread.consumer.close()  # what waits would take a drain of another test, and give it back
        broker.close()


def numbers(seen: Queue, count: int) -> list[int]:
    try:
        return [seen.get(timeout=DEADLINE_SECONDS).number for _ in range(count)]
    except Empty:
        pytest.fail(f"not all {count} drains arrived in {DEADLINE_SECONDS} s")


def error_of_a_dead(server: ServerProcess, broker: dramatiq.Broker) -> NotConnected:
    """What a broker that worked raises when its server has died; it shows no password."""
    enqueue_drain(broker, drain(1), "forward")
    server.kill()
    with pytest.raises(NotConnected) as caught:
        enqueue_drain(broker, drain(2), "forward")
    assert server.password not in str(caught.value)
    return caught.value


def send(url: str, *drains: Drain, direction: str = "forward", identity: str = "") -> None:
    broker = make_broker(url)
    serve(broker, lambda: identity)
    for each in drains:
        enqueue_drain(broker, each, direction)
    broker.close()
