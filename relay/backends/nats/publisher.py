"""The NATS sink's connection: publishes a batch and awaits every acknowledgement.

Acknowledgements come to one inbox under a running number: the client's own `publish_async` makes a token, a future
and a timer for each message, which costs more than a fifth of the throughput (`make bench ARGS="--only nats"`).
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import nats.errors
import nats.js.errors
from nats.js.api import StreamConfig

from relay.backends.nats.client import NatsClient
from relay.backends.nats.config import NatsSinkConfig
from relay.backends.nats.errors import ERRORS
from relay.errors import ConfigError
from relay.models import Failure

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.api import StreamInfo

# The largest `max_payload` that a server can have is 64 MiB: one such record, and a chunk of others, fit.
_OUTGOING_BUFFER_BYTES = 72 * 1024 * 1024
# How often sending pauses, so that the server works on the first records while later ones are prepared.
_RECORDS_BETWEEN_PAUSES = 250


class Outgoing(NamedTuple):
    """A record as it goes to the client."""

    position: int
    """In the batch."""
    subject: str
    body: bytes
    headers: dict[str, str]


class NatsPublisher:
    """`publish` blocks the caller, as `open` and `close` do."""

    largest_bytes: int
    """Body and headers together; known once open."""

    def __init__(self, config: NatsSinkConfig, pipeline: str, where: str) -> None:
        self._where = where
        self._nats = NatsClient(
            config, config.timeout_ms, pipeline, where, self._begin, pending_size=_OUTGOING_BUFFER_BYTES
        )
        self._client = self._nats.client
        self._config = config
        self._inbox = ""
        self._stored = f'{{"stream":{json.dumps(config.stream)},'.encode()
        self._number = 0
        self._waiting: dict[int, Outgoing] = {}
        self._failures: dict[int, Failure] = {}

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        self._nats.open()

    def close(self) -> None:
        self._nats.close()

    def publish(self, chunk: Sequence[Outgoing], deadline: float) -> dict[int, Failure]:
        """What was not stored, by index in the batch. Raises NotConnected if the connection was lost."""
        if not chunk:
            return {}
        return self._nats.call(self._publish(chunk, deadline), deadline - time.monotonic() + 1)

    # Inside the loop ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
        info = await self._nats.stream_info() or await self._make_stream()
        limit = info.config.max_msg_size or -1
        self.largest_bytes = min(self._client.max_payload, limit) if limit > 0 else self._client.max_payload
        if info.config.no_ack:
            raise ConfigError(f"{self._where}: it acknowledges nothing (no_ack), so no delivery could be known")

    async def _make_stream(self) -> "StreamInfo":
        wanted = self._config
        subjects = wanted.stream_subjects or [wanted.stream, f"{wanted.stream}.>"]
        if not wanted.create_stream:
            raise ConfigError(
                f"{self._where}: there is no such stream; create it "
                f"(nats stream add {wanted.stream} --subjects '{','.join(subjects)}' --defaults) "
                "or set create_stream to true"
            )
        stream = StreamConfig(
            name=wanted.stream,
            subjects=subjects,
            num_replicas=wanted.replicas,
            duplicate_window=wanted.duplicate_window_ms / 1000,
        )
        return await self._client.jsm(timeout=wanted.timeout_ms / 1000).add_stream(stream)

    async def _publish(self, chunk: Sequence[Outgoing], deadline: float) -> dict[int, Failure]:
        self._waiting, self._failures = {}, {}
        for count, outgoing in enumerate(chunk, 1):
            self._nats.raise_if_lost()
            await self._send(outgoing)
            if count % _RECORDS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout_at(deadline):
                while self._waiting and self._nats.lost is None:
                    self._nats.news.clear()
                    await self._nats.news.wait()
        except TimeoutError:
            for late in self._waiting.values():
                reason = f"no acknowledgement within {self._config.timeout_ms} ms"
                self._failures[late.position] = Failure(late.position, False, "timeout", reason)
        self._nats.raise_if_lost()
        return self._failures

    async def _send(self, outgoing: "Outgoing") -> None:
        self._number += 1
        self._waiting[self._number] = outgoing
        try:
            await self._client.publish(
                outgoing.subject, outgoing.body, reply=f"{self._inbox}.{self._number}", headers=outgoing.headers
            )
        except nats.errors.Error as error:
            permanent, code = ERRORS.verdict(error)
            if not permanent:
                raise
            del self._waiting[self._number]
            self._failures[outgoing.position] = Failure(outgoing.position, True, code, str(error))

    async def _on_answer(self, message: "Msg") -> None:
        # A late answer to an earlier batch has a number that nothing waits for any more.
        outgoing = self._waiting.pop(int(message.subject[len(self._inbox) + 1 :]), None)
        if outgoing is None:
            return
        if not message.data.startswith(self._stored):
            failure = self._refusal(outgoing, message)
            if failure is not None:
                self._failures[outgoing.position] = failure
        if not self._waiting:
            self._nats.news.set()

    def _refusal(self, outgoing: "Outgoing", message: "Msg") -> Failure | None:
        if message.headers and message.headers.get("Status") == "503":
            reason = f"no stream takes subject {outgoing.subject!r}: add it to the subjects of {self._config.stream!r}"
            return Failure(outgoing.position, False, "no_stream", reason)
        try:
            answer = json.loads(message.data)
            if "error" in answer:
                nats.js.errors.APIError.from_error(answer["error"])
            if answer["stream"] == self._config.stream:
                return None
        except nats.js.errors.APIError as error:
            permanent, code = ERRORS.verdict(error)
            return Failure(outgoing.position, permanent, code, f"{error.description} ({error.err_code})")
        except (ValueError, TypeError, KeyError):
            pass
        # Something else subscribes to this subject and answers.
        reason = f"an answer that is not from stream {self._config.stream!r}: {message.data[:100]!r}"
        return Failure(outgoing.position, False, "rejected", reason)
