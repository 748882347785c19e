"""RabbitMQ as the broker between scheduler and workers."""

import threading
from queue import Queue

from relay.broker.factory import make_broker
from relay.models import Drain
from tests.broker.brokers import DEADLINE_SECONDS, drain, error_of_a_dead, numbers, running_worker, send


def test_workers_share_and_pick_up_at_once(rabbitmq_server):
    all_at_once = threading.Barrier(4)
    seen: Queue = Queue()

    def meet(received: Drain) -> None:
        all_at_once.wait(DEADLINE_SECONDS)
        seen.put(received)

    def worker():
        # Pika cannot be closed from another thread while its consumer waits, so that the timeout is short here.
        return running_worker(rabbitmq_server.url, meet, threads=2, idle_timeout_ms=200)

    with worker(), worker():
        send(rabbitmq_server.url, *map(drain, range(4)))
        assert sorted(numbers(seen, 4)) == list(range(4))


def test_a_server_that_is_gone_is_not_connected(own_rabbitmq):
    server = own_rabbitmq()
    server.start()
    broker = make_broker(server.url)
    assert error_of_a_dead(server, broker).code == "not_connected"
    broker.close()
