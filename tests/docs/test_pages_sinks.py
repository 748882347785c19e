"""The first example of each sink on the page of its backend, run as it is printed: what it publishes arrives.

Replaced are addresses, credentials and paths only, each of them named here.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedRedis
from tests.backends.nats.harness import NatsHarness
from tests.backends.rabbitmq.harness import Broker
from tests.docs.pages import blocks, deliver, run, substituted
from tests.e2e.drains import Drains, draining
from tests.services.http_receiver import HttpReceiver
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.services.rabbitmq import RabbitmqServer

PUBLISHED = {"order": 42}


@pytest.fixture(scope="module")
def moto(run_dir: Path) -> Iterator[MotoServer]:
    """Without the queues and buckets of other tests."""
    with MotoServer(run_dir / "moto-of-the-pages") as server:
        yield server


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


def test_kafka(drains: Drains, own_kafka: Callable[[], KafkaServer]) -> None:
    server = own_kafka()
    deliver(drains, "backends/kafka#sink", {"localhost:9092": server.url})
    assert [json.loads(record.value or b"") for record in server.read_all("orders", "read_committed")] == [PUBLISHED]


def test_nats(drains: Drains, own_nats: Callable[[], NatsServer]) -> None:
    harness = NatsHarness(server := own_nats())
    deliver(drains, "backends/nats#sink", {"nats://localhost:4222": server.url})
    harness.stream = "orders"
    assert [json.loads(seen.body) for seen in harness.read_all()] == [PUBLISHED]
    assert harness.stream_config().subjects == ["orders", "orders.>"]


def test_redis(drains: Drains, redis_server: EmbeddedRedis) -> None:
    import redis

    deliver(drains, "backends/redis#sink", {"redis://localhost:6379/0": redis_server.url})
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        [(_, entry)] = client.xrange("orders")
    assert json.loads(entry["body"]) == PUBLISHED


def test_rabbitmq(drains: Drains, rabbitmq_server: RabbitmqServer) -> None:
    broker = Broker(rabbitmq_server)
    broker.ask(lambda channel: channel.queue_delete("orders"))
    deliver(drains, "backends/rabbitmq#sink", {"amqp://guest:guest@localhost:5672/": rabbitmq_server.url})
    assert [json.loads(message.body) for message in broker.read_all("orders")] == [PUBLISHED]


def test_sqs(drains: Drains, moto: MotoServer) -> None:
    deliver(drains, "backends/sqs#sink", {"http://localhost:5000": moto.url})
    client = moto.client("sqs", moto.url)
    [url] = client.list_queues()["QueueUrls"]
    [message] = client.receive_message(QueueUrl=url)["Messages"]
    assert json.loads(message["Body"]) == PUBLISHED


def test_webhook(drains: Drains, http_receiver: HttpReceiver) -> None:
    seen = len(http_receiver.requests("/hooks/orders"))
    deliver(drains, "backends/webhook#sink", {"http://localhost:8000": http_receiver.url})
    [request] = http_receiver.requests("/hooks/orders")[seen:]
    assert (request.method, json.loads(request.body)) == ("POST", PUBLISHED)


def test_inbox(drains: Drains) -> None:
    deliver(drains, "backends/postgresql#sink")
    assert drains.query("select payload, source from tide.orders_in") == [(PUBLISHED, "orders")]


def test_the_inbox_of_another_database(drains: Drains, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's second and third example: a user who may write to the inbox, and nothing else."""
    _, here, there = blocks("backends/postgresql#sink")
    billing = database.server.create_database()
    monkeypatch.setenv("TIDE_SECRET_BILLING_PASSWORD", "secret")
    address = billing.url.partition("@")[2]
    try:
        with billing.admin() as admin:
            admin.execute("create role tide_writer login password 'secret'")
        with billing.connect() as owner:
            owner.execute(there)
        drains.query("select tide.outbox_create('orders')")
        drains.query(substituted(here, {"billing.example.com:5432/billing": address}))
        drains.query("select tide.outbox_publish('orders', '{\"order\": 42}')")
        drains.until_idle("orders-to-billing")
        with billing.connect() as reader:
            assert reader.execute("select payload from tide.orders_in").fetchall() == [(PUBLISHED,)]
    finally:
        drains.resources.sinks.close()
        with billing.admin() as admin:
            admin.execute("drop owned by tide_writer; drop role tide_writer")
        database.server.drop_database(billing)


def test_object_storage(drains: Drains, moto: MotoServer) -> None:
    keys = {"http://localhost:9000": moto.url, "minioadmin": "tide"}
    name = run(drains, "backends/object_storage#sink", keys)
    drains.query("update tide.message set created_at = created_at - interval '10 s'")  # else the test waits for it
    drains.until_idle(name)
    s3 = moto.client("s3")
    [found] = s3.list_objects_v2(Bucket="lake")["Contents"]
    assert found["Key"] == f"raw/orders/orders-{1:019}-{1:019}.jsonl.gz"
    [line] = gzip.decompress(s3.get_object(Bucket="lake", Key=found["Key"])["Body"].read()).splitlines()
    assert json.loads(line)["payload"] == PUBLISHED


def test_objects_in_a_folder(drains: Drains, tmp_path: Path) -> None:
    """The page's second example."""
    drains.query("select tide.outbox_create('orders')")
    drains.query(substituted(blocks("backends/object_storage#sink")[1], {"/var/lib/tide-relay/out": str(tmp_path)}))
    drains.query("select tide.outbox_publish('orders', '{\"order\": 42}')")
    drains.query("update tide.message set created_at = created_at - interval '5 min'")
    drains.until_idle("orders-to-folder")
    [path] = tmp_path.rglob("*.jsonl.gz")
    assert len(path.relative_to(tmp_path).parts) == len(["lake", "orders", "year", "month", "day", "name"])
    assert json.loads(gzip.decompress(path.read_bytes()))["payload"] == PUBLISHED


def test_file(drains: Drains, tmp_path: Path) -> None:
    deliver(drains, "backends/file#sink", {"/var/lib/tide-relay/out": str(tmp_path)})
    [line] = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert json.loads(line)["payload"] == PUBLISHED


def test_stdout(drains: Drains, capfd: pytest.CaptureFixture[str]) -> None:
    deliver(drains, "backends/stdio#sink")
    [line] = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert json.loads(line)["payload"] == PUBLISHED
