"""What another client writes into the queues: it is removed and counted at once, and the drains behind it are done."""

import json
import time
import uuid
from collections import Counter
from queue import Queue

import pika
import pytest

from relay.broker.factory import make_broker
from relay.broker.queues import MAINTENANCE_QUEUE, enqueue_drain
from relay.broker.rabbitmq import ConfirmingRabbitmqBroker
from relay.broker.received import LARGEST_BYTES, Refused, decode
from tests.broker.brokers import FORWARD, drain, numbers, running_worker, send
from tests.waiting import wait_until

FAR = 4_000_000_000_000


def forged(**changes) -> bytes:
    """A drain as the scheduler sends it, but for these fields."""
    options = {"max_retries": 0, "max_age": 60_000}
    fields = {
        "queue_name": FORWARD, "actor_name": "drain", "args": ["forged", 1, 1, 60_000], "kwargs": {},
        "options": options,
        "message_id": str(uuid.uuid4()), "message_timestamp": int(time.time() * 1000),
    }  # fmt: skip
    return json.dumps(fields | changes).encode()


def with_args(*args) -> bytes:
    return forged(args=list(args))


BAD = [
    ("delayed", forged(options={"max_age": 60_000, "eta": FAR})),
    ("delayed", forged(options={"max_age": 60_000, "eta": None})),
    ("undecodable", b"\x80\x04garbage"),
    ("undecodable", b"[" * 8000),
    ("undecodable", b"1" * 8000),
    ("undecodable", b"null"),
    ("undecodable", b'"text"'),
    ("too_large", forged(pad="x" * LARGEST_BYTES)),
    ("actor", forged(actor_name="maintain")),
    ("actor", forged(actor_name=["drain"])),
    ("arguments", forged(kwargs={"x": 1})),
    ("arguments", forged(args={"0": 1})),
    ("arguments", forged(options=[])),
    ("arguments", forged(options={})),
    ("arguments", forged(options={"max_age": "1"})),
    ("arguments", forged(message_id="\x1b[2J")),
    ("arguments", forged(message_timestamp="now")),
    ("arguments", forged(message_timestamp=1e300)),
    ("arguments", with_args()),
    ("arguments", with_args("orders", 1, 1)),
    ("arguments", with_args(["orders"], 1, 1, 1)),
    ("arguments", with_args("a\0b", 1, 1, 1)),
    ("arguments", with_args("a\x1b[2J", 1, 1, 1)),
    ("arguments", with_args("x" * 201, 1, 1, 1)),
    ("arguments", with_args("orders", True, 1, 1)),
    ("arguments", with_args("orders", 1.5, 1, 1)),
    ("arguments", with_args("orders", 2**63, 1, 1)),
    ("arguments", with_args("orders", 1, -1, 1)),
    ("arguments", with_args("orders", 1, 1, 10**12)),
    ("arguments", with_args("orders", 1, 1, None)),
]


@pytest.mark.parametrize(("code", "body"), BAD, ids=[f"{code}-{number}" for number, (code, _) in enumerate(BAD)])
def test_what_the_scheduler_does_not_send_is_refused(code, body):
    with pytest.raises(Refused) as caught:
        decode(body, FORWARD)
    assert caught.value.code == code
    assert len(str(caught.value)) < 200


def test_of_a_message_nothing_but_actor_arguments_and_age_is_believed():
    options = {
        "max_age": 5, "redis_message_id": "other", "pipe_target": {}, "on_failure": "x", "time_limit": 1, "retries": 9,
        "throws": "x",
    }  # fmt: skip
    message = decode(forged(queue_name="tide.nowhere", options=options), FORWARD)
    assert (message.queue_name, message.options, message.kwargs) == (FORWARD, {"max_age": 5}, {})
    with pytest.raises(Refused, match="no arguments"):
        decode(forged(actor_name="maintain"), MAINTENANCE_QUEUE)


EXPECTED = Counter(code for code, _ in BAD)


def test_forged_messages_in_redis_stop_nothing(redis_server):
    seen: Queue = Queue()
    refused: list[str] = []
    client = make_broker(redis_server.url).client
    for body in [body for _, body in BAD]:
        client.hset(f"tide:{FORWARD}.msgs", key := str(uuid.uuid4()), body)
        client.rpush(f"tide:{FORWARD}", key)
    client.rpush(f"tide:{FORWARD}", "no message has this id")
    send(redis_server.url, drain(1))
    with running_worker(redis_server.url, seen.put, refused=refused.append, threads=1):
        assert numbers(seen, 1) == [1]
        wait_until(lambda: Counter(refused) == EXPECTED + Counter(["no_message"]), what="all are counted")
        send(redis_server.url, drain(2))
        assert numbers(seen, 1) == [2]
        wait_until(lambda: not client.exists(f"tide:{FORWARD}.msgs"), what="nothing of them is left")
        assert not client.keys("tide:__acks__.*")
    client.close()


def test_a_message_in_redis_is_acknowledged_under_the_id_it_was_found_under(redis_server):
    seen: Queue = Queue()
    client = make_broker(redis_server.url).client
    client.hset(f"tide:{FORWARD}.msgs", "mine", forged(options={"max_age": 60_000, "redis_message_id": "another"}))
    client.rpush(f"tide:{FORWARD}", "mine")
    with running_worker(redis_server.url, seen.put):
        assert numbers(seen, 1) == [1]
        wait_until(lambda: not client.exists(f"tide:{FORWARD}.msgs"), what="it is acknowledged")
    client.close()


@pytest.mark.parametrize("suffix", ["", ".msgs", ".wake"])
def test_a_key_of_the_wrong_type_is_removed_by_workers_and_schedulers(redis_server, suffix):
    seen: Queue = Queue()
    broker = make_broker(redis_server.url)
    with running_worker(redis_server.url, seen.put, idle_timeout_ms=100):
        send(redis_server.url, drain(1))
        assert numbers(seen, 1) == [1]
        broker.client.set(f"tide:{FORWARD}{suffix}", "text")
        send(redis_server.url, drain(2))
        assert numbers(seen, 1) == [2]
    broker.client.set(f"tide:{FORWARD}{suffix}", "text")
    enqueue_drain(broker, drain(3), "forward")
    with running_worker(redis_server.url, seen.put):
        assert numbers(seen, 1) == [3]
    broker.close()


def test_forged_messages_in_rabbitmq_stop_nothing(rabbitmq_server):
    seen: Queue = Queue()
    refused: list[str] = []
    broker = make_broker(rabbitmq_server.url)
    assert isinstance(broker, ConfirmingRabbitmqBroker)
    broker.declare_queue(FORWARD, ensure=True)
    broker.flush(FORWARD)
    for body in [body for _, body in BAD]:
        properties = pika.BasicProperties(content_type="x", priority=9, headers={"x-death": [{"count": 1}]})
        broker.channel.basic_publish("", FORWARD, body, properties)
    send(rabbitmq_server.url, drain(1))
    with running_worker(
        rabbitmq_server.url, seen.put, refused=refused.append, threads=1, idle_timeout_ms=200
    ) as worker:
        assert numbers(seen, 1) == [1]
        wait_until(lambda: Counter(refused) == EXPECTED, what="all are counted")
        assert set(worker.consumers) == {FORWARD}
    broker.close()
