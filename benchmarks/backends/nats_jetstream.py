"""NATS JetStream, streams on disk, by nats-py."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import nats
from nats.js import JetStreamContext

from benchmarks.backends.base import Destination, Origin, Write
from benchmarks.bare import Batches, headers

_PENDING = 1000
_WAIT_SECONDS = 10.0


class NatsDestination(Destination):
    def __init__(self, url: str) -> None:
        self._url = url

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {
            "sink_type": "nats", "url": self._url, "stream": place, "subject_template": place, "create_stream": True,
        }  # fmt: skip

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        async def loop() -> None:
            client = await nats.connect(self._url)
            jetstream = client.jetstream(publish_async_max_pending=_PENDING)
            await jetstream.add_stream(name=place, subjects=[place])
            for rows in batches:
                acknowledgements = []
                for row in rows:
                    sent = headers(row)
                    sent["Nats-Msg-Id"] = sent["relay-id"]
                    acknowledgements.append(await jetstream.publish_async(place, row[1].encode(), headers=sent))
                await asyncio.gather(*acknowledgements)
            await client.close()

        asyncio.run(loop())

    def count(self, place: str) -> int:
        async def ask() -> int:
            client = await nats.connect(self._url)
            info = await client.jetstream().stream_info(place)
            await client.close()
            return info.state.messages

        return asyncio.run(ask())


class NatsOrigin(Origin):
    def __init__(self, url: str, stream: str) -> None:
        self._url = url
        self._stream = stream

    def fill(self, payload: str, headers: Sequence[dict[str, str]]) -> None:
        async def publish() -> None:
            client = await nats.connect(self._url)
            jetstream = client.jetstream(publish_async_max_pending=_PENDING)
            await jetstream.add_stream(name=self._stream, subjects=[self._stream])
            for begin in range(0, len(headers), _PENDING):
                await asyncio.gather(*[
                    await jetstream.publish_async(
                        self._stream, payload.encode(), headers={**each, "Nats-Msg-Id": each["relay-id"]}
                    )
                    for each in headers[begin : begin + _PENDING]
                ])  # fmt: skip
            await client.close()

        asyncio.run(publish())

    def config(self, place: str) -> dict[str, object]:
        return {"source_type": "nats", "url": self._url, "stream": self._stream, "consumer": place}

    def receive(self, place: str, batch: int, messages: int, write: Write) -> None:
        async def loop() -> None:
            client = await nats.connect(self._url)
            jetstream = client.jetstream()
            await self._receive(jetstream, place, batch, messages, write)
            await client.flush()  # the acknowledgements are on their way until then
            await client.close()

        asyncio.run(loop())

    async def _receive(self, jetstream: JetStreamContext, place: str, batch: int, messages: int, write: Write) -> None:
        subscription = await jetstream.pull_subscribe(self._stream, durable=place)
        while messages > 0:
            found = await subscription.fetch(batch, _WAIT_SECONDS)
            write([self._row(message) for message in found])
            for message in found:
                await message.ack()
            messages -= len(found)

    def _row(self, message: Any) -> tuple[str, str, None, str, str]:
        found = message.headers
        return found["Nats-Msg-Id"], message.subject, None, message.data.decode(), json.dumps(found)
