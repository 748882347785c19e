"""Source to inbox."""

import asyncio
from functools import cached_property
from typing import Any

import nats
import redis
from confluent_kafka import Producer

from tests.faults.exactly_once_flows import Flow, Handler, Reverse


class KafkaSourceFlow(Reverse):
    """As with the local inbox, rows are taken away: positions alone keep them from coming again."""

    name = "kafka-source"
    service = "kafka"
    outages = (BufferError,)

    def prepare(self, name: str) -> None:
        assert self.services.kafka
        self.services.kafka.create_topic(name, 2)

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.kafka
        return {"source_type": "kafka", "brokers": self.services.kafka.url, "topic": name}

    def make(self) -> None:
        assert self.services.kafka
        self._handler = Handler(self.pipelines, self.names)
        self._producer = Producer(self.services.kafka.access | {"enable.idempotence": True, "linger.ms": 0})
        super().make()

    def start(self) -> None:
        super().start()
        self._handler.start()

    def send(self, name: str, count: int) -> list[str]:
        sent: list[str] = []

        def confirmed(error: Any, message: Any) -> None:
            if error is None:
                sent.append(f"{name}/{message.partition()}/{message.offset()}")

        for number in range(count):
            self._producer.produce(name, b"%d" % number, partition=number % 2, on_delivery=confirmed)
        self._producer.flush(60)
        return sent

    def stored(self, name: str) -> dict[str, list[str]]:
        assert self.services.kafka
        found: dict[str, list[str]] = {f"{name}/{number}/": [] for number in range(2)}
        for record in self.services.kafka.read_all(name):
            found[f"{name}/{record.partition}/"].append(f"{name}/{record.partition}/{record.offset}")
        return found

    def arrived(self, name: str) -> list[str]:
        return self._handler.handled(name)


class RedisSourceFlow(Reverse):
    name = "redis-source"
    service = "redis"
    ordered_when_fenced = False
    outages = (redis.RedisError,)

    @cached_property
    def client(self) -> "redis.Redis":
        assert self.services.redis
        return redis.Redis.from_url(self.services.redis.url)

    def prepare(self, name: str) -> None:
        """Its pipeline makes it."""

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.redis
        return {"source_type": "redis", "url": self.services.redis.url, "stream": name, "create_stream": True}

    def send(self, name: str, count: int) -> list[str]:
        pipe = self.client.pipeline(transaction=False)
        for number in range(count):
            pipe.xadd(name, {"body": number})
        return [f"{name}/{entry_id.decode()}" for entry_id in pipe.execute()]

    def stored(self, name: str) -> dict[str, list[str]]:
        entries: Any = self.client.xrange(name)
        return {f"{name}/": [f"{name}/{entry_id.decode()}" for entry_id, _ in entries]}


class NatsSourceFlow(Reverse):
    name = "nats-source"
    service = "nats"
    ordered_when_fenced = False
    outages = (OSError, nats.errors.Error)

    def prepare(self, name: str) -> None:
        self._ask(lambda jetstream: jetstream.add_stream(name=name, subjects=[name]))

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.nats
        return {"source_type": "nats", "url": self.services.nats.url, "stream": name}

    def send(self, name: str, count: int) -> list[str]:
        async def publish(jetstream: Any) -> list[str]:
            return [f"{name}/{(await jetstream.publish(name, b'1', timeout=2)).seq}" for _ in range(count)]

        return list(self._ask(publish))

    def stored(self, name: str) -> dict[str, list[str]]:
        state = self._ask(lambda jetstream: jetstream.stream_info(name)).state
        assert not state.num_deleted
        return {f"{name}/": [f"{name}/{number}" for number in range(state.first_seq, state.last_seq + 1)]}

    def arrived(self, name: str) -> list[str]:
        """The event id of a message without one of its own ends with its time."""
        return [event_id.rpartition("/")[0] for event_id in super().arrived(name)]

    def _ask(self, question: Any) -> Any:
        async def ask() -> Any:
            assert self.services.nats
            client = await nats.connect(
                self.services.nats.url, allow_reconnect=False, connect_timeout=2, error_cb=_ignore
            )
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(ask())


async def _ignore(_: Exception) -> None:
    """It is raised as well."""


REVERSE: tuple[type[Flow], ...] = (KafkaSourceFlow, RedisSourceFlow, NatsSourceFlow)
