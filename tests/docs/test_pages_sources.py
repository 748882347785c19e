"""The first example of each source on the page of its backend, run as it is printed.

What is sent by the commands of the page, or as the system's own clients send it, becomes a row.
Replaced are addresses, credentials and paths only, each of them named here.
"""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest
from psycopg.types.json import Jsonb

from relay.local.servers import EmbeddedRedis
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.nats.source_harness import NatsSourceHarness
from tests.backends.rabbitmq.harness import Broker
from tests.backends.source_harness import Sent
from tests.cli.command import RELAY, environment
from tests.docs.pages import command, run, text_of
from tests.e2e.drains import Drains, draining
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.services.rabbitmq import RabbitmqServer
from tests.web.api import running_api, signed

SENT = {"n": 1}
BODY = b'{"n": 1}'


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


def stored(drains: Drains, inbox: str = "orders_in") -> list[Any]:
    return [row[0] for row in drains.query(f"select payload from tide.{inbox} order by inbox_seq")]


def hasten(drains: Drains, **keys: int) -> None:
    """Drains end sooner when nothing comes; what they do is the same."""
    drains.query("update tide.pipeline set config = config || %s", Jsonb({"slice_ms": 100} | keys))


def receive(drains: Drains, pipeline: str, inbox: str = "orders_in") -> None:
    hasten(drains)
    drains.until(pipeline, lambda: stored(drains, inbox))
    assert stored(drains, inbox) == [SENT]


def test_kafka(drains: Drains, own_kafka: Callable[[], KafkaServer]) -> None:
    server = own_kafka()
    assert command("backends/kafka#source", "kafka-topics.sh --create").split()[2:4] == ["--topic", "orders"]
    server.create_topic("orders")
    assert BODY.decode() in command("backends/kafka#source", "echo ")
    KafkaSourceHarness(KafkaHarness(server)).send_to("orders", [Sent(BODY)])
    receive(drains, run(drains, "backends/kafka#source", {"localhost:9092": server.url}))


def test_nats(drains: Drains, own_nats: Callable[[], NatsServer]) -> None:
    server = own_nats()
    harness = NatsSourceHarness(server, name="commands")
    _, _, _, stream, _, subjects, _ = shlex.split(command("backends/nats#source", "nats stream add"))
    assert stream == harness.stream
    harness.nats.make_stream(subjects=subjects.split(","))
    _, _, harness.subject, body = shlex.split(command("backends/nats#source", "nats pub"))
    harness.send([Sent(body.encode())])
    receive(drains, run(drains, "backends/nats#source", {"nats://localhost:4222": server.url}), "commands_in")


def test_redis(drains: Drains, redis_server: EmbeddedRedis) -> None:
    import redis

    pipeline = run(drains, "backends/redis#source", {"redis://localhost:6379/0": redis_server.url})
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command(*shlex.split(command("backends/redis#source", "redis-cli xadd"))[1:])
    receive(drains, pipeline)


def test_rabbitmq(drains: Drains, rabbitmq_server: RabbitmqServer) -> None:
    broker = Broker(rabbitmq_server)
    broker.ask(lambda channel: channel.queue_delete("orders"))
    pipeline = run(drains, "backends/rabbitmq#source", {"amqp://guest:guest@localhost:5672/": rabbitmq_server.url})
    hasten(drains)
    drains.drain(pipeline)  # makes the queue
    broker.ask(lambda channel: channel.basic_publish_confirm(amqp.Message(BODY), "", "orders"))
    receive(drains, pipeline)


def test_sqs(drains: Drains, own_moto: Callable[[], MotoServer]) -> None:
    server = own_moto()
    pipeline = run(drains, "backends/sqs#source", {"http://localhost:5000": server.url})
    drains.query('update tide.pipeline set config = config || \'{"wait_time_seconds": 1, "slice_ms": 100}\'')
    drains.drain(pipeline)  # makes the queue
    client = server.client("sqs")
    [url] = client.list_queues()["QueueUrls"]
    client.send_message(QueueUrl=url, MessageBody=BODY.decode())
    receive(drains, pipeline)


def test_webhook(drains: Drains, database: Database, tmp_path: Path) -> None:
    name = run(drains, "backends/webhook#source")
    assert f"/hooks/{name}`" in text_of("backends/webhook#source")
    with running_api(database, tmp_path) as api:
        [secret] = drains.query("select config ->> 'signing_secret' from tide.pipeline")[0]
        assert api.post(name, BODY, signed("message-1", BODY, secret)).status == 200
    assert stored(drains, "shop") == [SENT]


def test_the_outbox_of_another_database(drains: Drains, database: Database) -> None:
    shop = database.server.create_database()
    try:
        with shop.connect() as connection:
            words = shlex.split(command("backends/postgresql#source", "psql shop"))
            for statement in [word for before, word in pairwise(words) if before == "-c"]:
                connection.execute(statement)
        printed = "postgresql://postgres@localhost:5432/shop"
        receive(drains, run(drains, "backends/postgresql#source", {printed: shop.url}))
        drains.resources.sources.close()
    finally:
        database.server.drop_database(shop)


def test_file(drains: Drains, tmp_path: Path) -> None:
    said = command("backends/file#source", "mkdir -p").replace("/var/lib/tide-relay/in", str(tmp_path))
    subprocess.run(said, shell=True, check=True, timeout=10)
    receive(drains, run(drains, "backends/file#source", {"/var/lib/tide-relay/in": str(tmp_path)}))


def test_stdin(drains: Drains, database: Database, tmp_path: Path) -> None:
    run(drains, "backends/stdio#source")
    (tmp_path / "orders.jsonl").write_bytes(BODY + b"\n")
    said = command("backends/stdio#source", "relay receive lines")
    shell = environment(RELAY_POSTGRES_URL=database.url, PATH=f"{RELAY.parent}:/usr/bin:/bin")
    subprocess.run(said, shell=True, check=True, timeout=60, cwd=tmp_path, env=shell)
    assert stored(drains) == [SENT]
