"""Reverse pipelines in a real fleet: messages of Redis streams become rows, once, fast, whichever process dies."""

import threading

import redis
from confluent_kafka import Producer
from psycopg.types.json import Jsonb

from tests.waiting import wait_until


class Receiving:
    """Streams, inboxes of the same names, and pipelines between them."""

    def __init__(self, pipelines, url):
        self._pipelines = pipelines
        self._url = url
        self.redis = redis.Redis.from_url(url)

    def make(self, name, **config):
        self._pipelines.run("select tide.inbox_create(%s)", name)
        self.set(name, **config)

    def set(self, name, **config):
        keys = {"source_type": "redis", "url": self._url, "stream": name, "create_stream": True} | config
        self._pipelines.run("select tide.relay_set_inbox(%s, %s, %s)", name, name, Jsonb(keys))

    def send(self, name, *bodies):
        pipe = self.redis.pipeline(transaction=False)
        for body in bodies:
            pipe.xadd(name, {"body": body})
        pipe.execute()

    def payloads(self, name):
        return [row[0] for row in self._pipelines.run(f"select payload from tide.{name} order by inbox_seq")]

    def wait_for(self, name, count, timeout_seconds=20):
        counted = f"select count(*) from tide.{name}"
        wait_until(
            lambda: self._pipelines.run(counted)[0][0] >= count, timeout_seconds, f"{count} rows of inbox {name}"
        )


def test_messages_become_rows_in_order_and_those_for_an_idle_pipeline_at_once(fleet, pipelines, redis_server):
    receiving = Receiving(pipelines, redis_server.url)
    receiving.make("commands")
    receiving.send("commands", *range(500))
    fleet.scheduler(), fleet.workers()
    receiving.wait_for("commands", 500)
    wait_until(lambda: receiving.redis.xinfo_groups("commands")[0]["pending"] == 0, 10, "everything is acknowledged")
    with pipelines.connect() as listener:
        listener.execute("listen tide_inbox")
        for n in range(500, 520):
            receiving.send("commands", n)
            # The notification tells of the commit: without it the next message would not be sent.
            assert [heard.payload for heard in listener.notifies(timeout=5, stop_after=1)] == ["commands"]
    assert receiving.payloads("commands") == list(range(520))


def test_more_pipelines_than_threads_all_get_their_messages(fleet, pipelines, redis_server):
    receiving = Receiving(pipelines, redis_server.url)
    names = [f"inbox{n}" for n in range(12)]
    for name in names:
        receiving.make(name, poll_interval_ms=200)
    pipelines.make("forward")
    fleet.scheduler(), fleet.workers(threads=3)
    for round_number in range(1, 4):
        for name in names:
            receiving.send(name, round_number)
        for name in names:
            receiving.wait_for(name, round_number)
        # A thread is always free for a forward drain.
        pipelines.wait_delivered("forward", pipelines.publish("forward"))


def test_a_change_of_configuration_takes_effect_while_a_drain_waits(fleet, pipelines, redis_server):
    receiving = Receiving(pipelines, redis_server.url)
    receiving.make("commands")
    fleet.scheduler(), fleet.workers()
    receiving.send("commands", 1)
    receiving.wait_for("commands", 1)
    receiving.set("commands", event_type="renamed")
    receiving.send("commands", 2, 3)
    receiving.wait_for("commands", 3)
    receiving.send("commands", 4)
    receiving.wait_for("commands", 4)
    rows = pipelines.run("select event_type from tide.commands order by inbox_seq desc limit 1")
    assert rows == [("renamed",)]


def test_killed_workers_lose_nothing_and_store_nothing_twice(fleet, pipelines, redis_server):
    receiving = Receiving(pipelines, redis_server.url)
    receiving.make("commands", batch_size=50, visibility_timeout_ms=1000, slice_ms=2000)
    fleet.scheduler()
    workers = fleet.workers()
    enough = threading.Event()
    sent = 0

    def send():
        nonlocal sent
        while not enough.wait(0.005):
            receiving.send("commands", *range(sent, sent + 20))
            sent += 20

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(3):
            count = len(receiving.payloads("commands"))
            receiving.wait_for("commands", count + 300)
            workers.kill()
            workers = fleet.workers()
        count = len(receiving.payloads("commands"))
        receiving.wait_for("commands", count + 300)
    finally:
        enough.set()
        sender.join()
    receiving.wait_for("commands", sent, timeout_seconds=30)
    payloads = receiving.payloads("commands")
    assert sorted(payloads) == list(range(sent)), "lost, or stored twice"
    assert payloads == sorted(payloads), "out of order"


def test_a_source_that_goes_away_is_tried_again_until_it_is_back(fleet, pipelines, redis_server, own_redis):
    server = own_redis(persistent=True)
    receiving = Receiving(pipelines, server.url)
    receiving.make("commands")
    fleet.scheduler(), fleet.workers()
    receiving.send("commands", 1)
    receiving.wait_for("commands", 1)
    server.kill()

    def has_failed():
        return pipelines.run("select outcome, failures from tide.drain where pipeline = 'commands'")[0][1] >= 2

    wait_until(has_failed, 20, "the drains fail")
    server.start()
    receiving.send("commands", 2)
    receiving.wait_for("commands", 2, timeout_seconds=40)


def positions(pipelines, name):
    return dict(pipelines.run("select partition, position from tide.position where pipeline = %s", name))


def test_where_a_source_begins_is_stored_before_anything_comes(fleet, pipelines, redis_server):
    receiving = Receiving(pipelines, redis_server.url)
    receiving.make("commands", start="$", visibility_timeout_ms=1000, slice_ms=2000)
    fleet.scheduler()
    workers = fleet.workers()
    wait_until(lambda: positions(pipelines, "commands") == {"commands": "0-0"}, 20, "the beginning is stored")
    workers.kill()
    receiving.redis.delete("commands")
    receiving.send("commands", 1, 2, 3)
    fleet.workers()
    receiving.wait_for("commands", 3)
    assert receiving.payloads("commands") == [1, 2, 3]


def test_a_topic_of_a_pattern_that_is_added_while_no_worker_runs_is_read_whole(fleet, pipelines, kafka_server):
    pipelines.run("select tide.inbox_create('events')")
    keys = {"source_type": "kafka", "brokers": kafka_server.url, "topic": "^reverse-.*", "auto_offset_reset": "latest"}
    keys |= {"visibility_timeout_ms": 1000, "slice_ms": 2000}
    pipelines.run("select tide.relay_set_inbox('events', 'events', %s)", Jsonb(keys))
    fleet.scheduler()
    workers = fleet.workers()
    wait_until(lambda: positions(pipelines, "events") == {"^reverse-.*": "read"}, 20, "the pattern is stored")
    workers.kill()
    kafka_server.create_topic("reverse-events")
    producer = Producer(kafka_server.access)
    for number in range(3):
        producer.produce("reverse-events", str(number))
    assert producer.flush(10) == 0
    fleet.workers()
    counted = "select payload from tide.events order by inbox_seq"
    wait_until(lambda: pipelines.run(counted) == [(0,), (1,), (2,)], 20, "all three are rows")


def test_a_topic_whose_transactions_were_received_and_removed_goes_on(fleet, pipelines, apache_kafka):
    """What ends a transaction has an offset of its own, behind the last message."""
    apache_kafka.create_topic("reverse-ended")
    producer = Producer(apache_kafka.access | {"transactional.id": "reverse-ended"})
    producer.init_transactions(10)

    def send(*bodies):
        producer.begin_transaction()
        for body in bodies:
            producer.produce("reverse-ended", str(body))
        producer.commit_transaction(10)

    access = apache_kafka.access
    keys = {"source_type": "kafka", "brokers": apache_kafka.url, "topic": "reverse-ended"}
    keys |= {"sasl_username": access["sasl.username"], "sasl_password": access["sasl.password"]}
    keys |= {"security_protocol": access["security.protocol"].lower(), "visibility_timeout_ms": 1000, "slice_ms": 2000}
    pipelines.run("select tide.inbox_create('ended')")
    pipelines.run("select tide.relay_set_inbox('ended', 'ended', %s)", Jsonb(keys))
    fleet.scheduler()
    workers = fleet.workers()
    rows = "select payload from tide.ended order by inbox_seq"
    send(1, 2)
    wait_until(lambda: pipelines.run(rows) == [(1,), (2,)], 20, "both are rows")
    wait_until(
        lambda: positions(pipelines, "ended")["reverse-ended/0"].split("@")[0] == "2", 20, "the position is behind all"
    )
    workers.kill()
    apache_kafka.trim("reverse-ended", 0, 3)
    send(3)
    fleet.workers()
    wait_until(lambda: pipelines.run(rows) == [(1,), (2,), (3,)], 20, "the pipeline goes on")
