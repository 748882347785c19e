"""The NATS source's connection: asks for messages, acknowledges them, gives back what was not acknowledged.

One request at a time, and each is over before `fetch` returns: with `no_wait` and `expires` the server ends it when
it has sent what there was, or the first that came, or when the time is over. So nothing is on its way to a worker that
rests, where it would lie until `ack_wait` is over; and an idle source costs one request for each wait.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import nats.errors

from relay.backends.nats.arrived import Arrived, Token
from relay.backends.nats.client import NatsClient
from relay.backends.nats.config import NatsSourceConfig
from relay.backends.nats.consumer import Consumer, find_or_make
from relay.backends.source import MAX_HELD_BYTES
from relay.errors import NotConnected

if TYPE_CHECKING:
    from nats.aio.msg import Msg

# The sequences that the next worker looks through for messages that a killed one held; it is a millisecond per hundred.
_MOST_GIVEN_BACK = 100_000
_GIVE_BACK_SECONDS = 2.0
_WHILE_FULL_SECONDS = 0.05
_WORTH_WAITING_SECONDS = 0.01
_NAK = b"-NAK"


class NatsReceiver:
    """`fetch`, `ack` and `release` block the caller, as `open` and `close` do."""

    def __init__(
        self, config: NatsSourceConfig, consumer: str, pipeline: str, where: str, position: str | None
    ) -> None:
        self._where = where
        self._nats = NatsClient(config, config.timeout_ms, pipeline, where, self._begin)
        self._client = self._nats.client
        self._config = config
        self._name = consumer
        self._position = position
        self._partition = f"{config.stream}/{consumer}"
        self._seconds = config.timeout_ms / 1000
        self._consumer: Consumer
        self._held: dict[int, str] = {}
        """Handed out, or about to be, and not acknowledged: sequence -> where to answer."""
        self._floor: int | None = None
        """None: every message up to the last one delivered was acknowledged, or is held here."""
        self._inbox = ""
        self._number = 0
        self._needed = 0
        self._arrived: list[Arrived] = []

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        self._nats.open()

    @property
    def begun(self) -> dict[str, str]:
        """Where a consumer begins that does not begin with all there is: a position, if there was none."""
        if self._position is not None or self._config.deliver_policy == "all":
            return {}
        return {self._partition: f"{self._consumer.floor}@{self._consumer.stream_made}"}

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Arrived]:
        return self._nats.call(self._fetch(max_messages, wait_seconds), wait_seconds + 3 * self._seconds)

    def ack(self, tokens: Sequence[Token]) -> None:
        if tokens:
            replies = [self._held.get(token.sequence, token.reply) for token in tokens]
            self._nats.call(self._answer(replies, b"", self._seconds), self._seconds + 1)
            for token in tokens:
                self._held.pop(token.sequence, None)

    def release(self) -> None:
        """What cannot be given back now is given back at the next `open`, or comes when `ack_wait` is over."""
        if self._held or self._floor is not None:
            with contextlib.suppress(NotConnected):
                self._nats.call(self._give_back(), _GIVE_BACK_SECONDS + 1)

    def close(self) -> None:
        if self._held and self._client.is_connected:
            self.release()
        self._nats.close()

    # Inside the loop ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_message)
        stream = await self._nats.stream_info()
        self._consumer = await find_or_make(self._client, self._config, self._name, self._where, stream, self._position)
        # Only this pipeline's worker uses the consumer: what is not acknowledged was held by one that is gone.
        orphans = self._consumer.unacknowledged()
        if 0 < len(orphans) <= _MOST_GIVEN_BACK:
            # Newer messages come after them only if the server has them back: unless it says so, nothing is asked for.
            await self._answer([self._consumer.reply_for(sequence) for sequence in orphans], _NAK, self._seconds)
        await self._look()

    async def _fetch(self, max_messages: int, wait_seconds: float) -> list[Arrived]:
        limits = self._consumer.limits
        until = time.monotonic() + wait_seconds
        batch = limits.batch(max_messages, len(self._held))
        if batch <= 0 and wait_seconds <= 0:
            return []
        request: dict[str, Any] = {"batch": max(batch, 1), "no_wait": True, "max_bytes": limits.bytes(MAX_HELD_BYTES)}
        if wait_seconds > 0:
            request["expires"] = limits.expires_ns(wait_seconds)
        elif self._floor is not None:
            # While the consumer is full of what a killed worker held, the server leaves a request without an answer.
            request["expires"] = limits.expires_ns(_WHILE_FULL_SECONDS)
        arrived = await self._ask(request, wait_seconds + self._seconds)
        left = until - time.monotonic()
        if not arrived and left > _WORTH_WAITING_SECONDS:
            # The next message exceeds all that may be held, so it comes alone. Or an old server did not wait.
            arrived = await self._ask({"batch": 1, "expires": limits.expires_ns(left)}, left + self._seconds)
        return arrived

    async def _ask(self, request: dict[str, Any], seconds: float) -> list[Arrived]:
        """What the server has: up to a batch of it at once, or else, with `expires`, what comes next until then."""
        self._number += 1
        self._needed, self._arrived = request["batch"], []
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._config.stream}.{self._name}"
        self._nats.raise_if_lost()
        await self._client.publish(subject, json.dumps(request).encode(), reply=f"{self._inbox}.{self._number}")
        try:
            async with asyncio.timeout(seconds):
                while self._needed > 0 and self._nats.lost is None:
                    self._nats.news.clear()
                    await self._nats.news.wait()
        except TimeoutError:
            # What it still sends would be lost: this connection has no use any more.
            self._nats.lost = nats.errors.TimeoutError(f"no answer within {self._config.timeout_ms} ms")
        self._nats.raise_if_lost()
        self._arrived, arrived = [], self._arrived
        return arrived

    async def _on_message(self, message: "Msg") -> None:
        if not message.reply:
            self._on_status(message)
            return
        tokens = message.reply.split(".")
        # `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<of the consumer>.<time>.<pending>`; in the newer form a
        # domain and an account stand before the stream.
        at = 5 if len(tokens) == 9 else 7
        sequence = int(tokens[at])
        self._needed -= 1
        if sequence not in self._held:
            self._arrived.append(self._placed(message, sequence, tokens[at + 2]))
        # One that is held comes again when `ack_wait` is over: it is acknowledged by its latest delivery.
        self._held[sequence] = message.reply
        if self._needed <= 0:
            self._nats.news.set()

    def _placed(self, message: "Msg", sequence: int, stored_at: str) -> Arrived:
        # The time tells it from a message of a recreated stream, which counts from 1 again.
        default_id = f"{self._config.stream}/{sequence}/{stored_at}"
        floor = sequence if self._floor is None else self._floor
        position = f"{floor}@{self._consumer.stream_made}"
        return Arrived(message, sequence, default_id, self._partition, position)

    def _on_status(self, message: "Msg") -> None:
        if message.subject != f"{self._inbox}.{self._number}":
            return
        headers = message.headers or {}
        status, words = headers.get("Status", ""), str(headers.get("Description", "")).strip()
        if status == "100":
            return
        over = words.lower().endswith(("exceeds maxbytes", "batch completed"))
        if status == "503":
            self._nats.lost = NotConnected(f"{self._where}: the consumer or the stream is gone", code="no_consumer")
        elif status == "409" and not over:
            self._nats.lost = NotConnected(f"{self._where}: the server says {words!r}", code="rejected")
        self._needed = 0
        self._nats.news.set()

    # Answers ----------------------------------------------------------------------------------------

    async def _answer(self, replies: Sequence[str], answer: bytes, seconds: float) -> None:
        """Returns when the server has worked on all of them: it does so in order, and confirms the last."""
        self._nats.raise_if_lost()
        async with asyncio.timeout(seconds):
            for reply in replies[:-1]:
                await self._client.publish(reply, answer)
            await self._client.request(replies[-1], answer, timeout=seconds)

    async def _refuse(self, replies: Iterable[str]) -> None:
        # A server that takes no such answer sends them again when `ack_wait` is over.
        with contextlib.suppress(nats.errors.TimeoutError, nats.errors.NoRespondersError, TimeoutError):
            await self._answer(list(replies), _NAK, min(_GIVE_BACK_SECONDS, self._seconds))

    async def _give_back(self) -> None:
        held, self._held = self._held, {}
        if held:
            await self._refuse(held[sequence] for sequence in sorted(held))
        await self._look()

    async def _look(self) -> None:
        """Whether messages may come again that are not held here: then no position may pass them."""
        with contextlib.suppress(nats.errors.TimeoutError, TimeoutError):
            self._floor = 0 if self._floor is None else self._floor
            consumer = await self._consumer.again(self._client, min(_GIVE_BACK_SECONDS, self._seconds))
            self._floor = consumer.floor if consumer.unacknowledged_count else None
