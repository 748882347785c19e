"""RabbitMQ: durable queues and persistent messages, by py-amqp, which is what kombu speaks through."""

import time
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp  # type: ignore[import-untyped]

from benchmarks.backends.base import Destination
from benchmarks.bare import Batches, headers

_WAIT_SECONDS = 10.0


class RabbitmqDestination(Destination):
    def __init__(self, url: str) -> None:
        self._url = url

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {"sink_type": "rabbitmq", "url": self._url, "routing_key": place}

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        with self._connect() as connection:
            channel = connection.channel()
            channel.confirm_select()
            confirmed = [0]  # the highest tag: the server confirms a durable queue's messages in order
            channel.events["basic_ack"].add(lambda tag, _multiple: confirmed.append(max(tag, confirmed.pop())))
            sent = 0
            for rows in batches:
                for row in rows:
                    found = headers(row)
                    message = amqp.Message(
                        row[1].encode(), message_id=found["relay-id"], application_headers=found, delivery_mode=2,
                        content_type="application/json", timestamp=int(time.time()),
                    )  # fmt: skip
                    channel.basic_publish(message, routing_key=place, mandatory=True)
                sent += len(rows)
                while confirmed[0] < sent:
                    connection.drain_events(_WAIT_SECONDS)

    def count(self, place: str) -> int:
        with self._connect() as connection:
            return int(connection.channel().queue_declare(place, passive=True).message_count)

    def make(self, place: str) -> None:
        with self._connect() as connection:
            connection.channel().queue_declare(place, durable=True, auto_delete=False)

    def remove(self, place: str) -> None:
        with self._connect() as connection:
            connection.channel().queue_delete(place)

    def _connect(self) -> Any:
        parts = urlsplit(self._url)
        return amqp.Connection(
            f"{parts.hostname}:{parts.port}", userid=parts.username, password=unquote(parts.password or ""),
            virtual_host=unquote(parts.path[1:]),
        )  # fmt: skip
