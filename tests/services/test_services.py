"""The services of the tests themselves: each is there, private, and comes back as it was."""

import asyncio
from collections.abc import Callable

import nats
import pika
import psycopg
import pytest
import redis
from confluent_kafka import Producer

from relay.local.servers import EmbeddedRedis
from tests.services.apache_kafka import ApacheKafka
from tests.services.nats import NatsServer
from tests.services.postgres import Database, PostgresServer
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until


@pytest.mark.each_postgres
def test_a_database_belongs_to_a_role_that_is_no_superuser(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        row = connection.execute(
            "select current_setting('is_superuser'), d.datdba = current_user::regrole, d.datname"
            " from pg_database d where d.datname = current_database()"
        ).fetchone()
    assert row == ("off", True, empty_database.name)


@pytest.mark.each_postgres
def test_a_database_is_migrated(database: Database) -> None:
    with database.connect() as connection:
        assert connection.execute("select nspowner::regrole::text from pg_namespace where nspname = 'tide'").fetchone()


def test_each_test_has_a_database_of_its_own(postgres: PostgresServer) -> None:
    first, second = (postgres.create_database(migrated=False) for _ in range(2))
    with first.connect() as connection:
        connection.execute("create table only_here ()")
    with second.connect() as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("select from only_here")
    with first.connect() as still_connected:
        postgres.drop_database(first)
        with pytest.raises(psycopg.OperationalError):
            still_connected.execute("select 1")
    postgres.drop_database(second)


def test_a_prepared_transaction_that_was_left_behind_does_not_keep_a_database(postgres: PostgresServer) -> None:
    left = postgres.create_database(migrated=False)
    with left.connect() as connection:
        connection.execute("begin; create table t (); prepare transaction 'left behind'")
    postgres.drop_database(left)


def test_a_postgres_of_its_own_may_be_killed(own_postgres: Callable[..., PostgresServer]) -> None:
    server = own_postgres(version=16, settings={"max_connections": 11})
    database = server.create_database(migrated=False)
    server.kill()
    server.start()
    with database.connect() as connection:
        assert connection.execute("show max_connections").fetchone() == ("11",)


def test_a_migrated_database_is_a_copy_of_a_template_that_is_migrated_once(
    own_postgres: Callable[..., PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated: list[str] = []

    def migrate(url: str) -> None:
        migrated.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("create table migrated as select current_user::text as role")

    monkeypatch.setattr("tests.services.postgres.migrate", migrate)
    server = own_postgres()
    for database in [server.create_database() for _ in range(2)]:
        with database.connect() as connection:
            assert connection.execute("delete from migrated returning role").fetchone() == ("tide_owner",)
    assert len(migrated) == 1


def test_redis_is_empty_at_the_start_of_a_test(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_redis_is_empty_again = test_redis_is_empty_at_the_start_of_a_test


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nats_keeps_its_streams_and_url_over_an_end(nats_server: NatsServer, end: str) -> None:
    url = nats_server.url

    async def publish() -> int:
        client = await nats.connect(url)
        try:
            stream = client.jetstream()
            await stream.add_stream(name=f"services-{end}", subjects=[f"services.{end}"])
            return (await stream.publish(f"services.{end}", b"one")).seq
        finally:
            await client.close()

    assert asyncio.run(publish()) == 1
    getattr(nats_server, end)()
    nats_server.start()
    assert asyncio.run(publish()) == 2


def test_rabbitmq_keeps_a_durable_queue_over_a_restart(rabbitmq_server: RabbitmqServer) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("services", durable=True)
        channel.basic_publish("", "services", b"one", pika.BasicProperties(delivery_mode=2), mandatory=True)
    rabbitmq_server.restart()
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
        assert connection.channel().basic_get("services", auto_ack=True)[2] == b"one"


def test_apache_kafka_keeps_what_it_confirmed_over_a_kill(apache_kafka: ApacheKafka) -> None:
    apache_kafka.create_topic("services", 2)
    producer = Producer(apache_kafka.access)
    producer.produce("services", b"one", partition=1)
    assert producer.flush(10) == 0
    apache_kafka.kill()
    apache_kafka.start()
    assert [record.value for record in apache_kafka.read_all("services")] == [b"one"]


def test_waiting_in_vain_says_what_for() -> None:
    with pytest.raises(pytest.fail.Exception, match="until the moon is blue; the last answer was 0"):
        wait_until(lambda: 0, timeout_seconds=0.01, what="the moon is blue")
    assert wait_until(iter([0, 0, 7]).__next__) == 7
