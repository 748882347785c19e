"""One connection to NATS JetStream, and the thread in which its asyncio loop runs. Nothing asynchronous leaves here.

Acknowledgements come to one inbox under a running number: the client's own `publish_async` makes a token, a future
and a timer for each message, which costs more than a fifth of the throughput (`make bench ARGS="--only nats"`).
"""

import asyncio
import binascii
import concurrent.futures
import contextlib
import json
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
import nats.js.errors
import nkeys
from nats.aio.client import Client
from nats.js.api import StreamConfig

from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Failure
from relay.secret_refs import mask
from relay.sinks.nats_config import NatsConfig, connect_options
from relay.sinks.nats_errors import FOR_A_PERSON, verdict

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.api import StreamInfo

    from relay.sinks.nats import Outgoing

T = TypeVar("T")

# The largest `max_payload` that a server can have is 64 MiB: one such record, and a chunk of others, fit.
_OUTGOING_BUFFER_BYTES = 72 * 1024 * 1024
# How often sending pauses, so that the server works on the first records while later ones are prepared.
_RECORDS_BETWEEN_PAUSES = 250
_CLOSE_SECONDS = 2.0


class NatsConnection:
    """`open`, `publish` and `close` block the caller; `close` may come from another thread at any time.

    Bound to one stream. When it was lost it stays lost: make a new one.
    """

    largest_bytes: int
    """Body and headers together; known once open."""

    def __init__(self, config: NatsConfig, pipeline: str, where: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = where
        self._thread: LoopThread | None = None
        self._client = Client()
        self._inbox = ""
        self._stored = f'{{"stream":{json.dumps(config.stream)},'.encode()
        self._number = 0
        self._waiting: dict[int, Outgoing] = {}
        self._failures: dict[int, Failure] = {}
        self._news = asyncio.Event()
        self._last_error: Exception | None = None
        self._lost: Exception | None = None

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when a person must change something."""
        options = connect_options(self._config, self._where) | {
            "name": f"tide-relay {self._pipeline}",
            "pending_size": _OUTGOING_BUFFER_BYTES,
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
        }
        seconds = self._config.timeout_ms / 1000
        self._thread = LoopThread(f"nats-{self._pipeline}")
        try:
            self._thread.call(self._open(options, time.monotonic() + seconds), seconds + 1)
        except (nats.errors.Error, nkeys.NkeysError, binascii.Error, OSError) as error:
            raise self._translated(error, opening=True) from error

    def publish(self, chunk: "Sequence[Outgoing]", deadline: float) -> dict[int, Failure]:
        """What was not stored, by index in the batch. Raises NotConnected if the connection was lost."""
        if not chunk:
            return {}
        if self._thread is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        try:
            return self._thread.call(self._publish(chunk, deadline), deadline - time.monotonic() + 1)
        except (nats.errors.Error, OSError) as error:
            raise self._translated(error, opening=False) from error

    def close(self) -> None:
        if self._thread is not None:
            if self._client.is_connected:
                # Whatever happens to the farewell, stop() ends the connection.
                with contextlib.suppress(nats.errors.Error, OSError, NotConnected):
                    self._thread.call(self._client.close(), _CLOSE_SECONDS)
            self._thread.stop()

    # Inside the loop ------------------------------------------------------------------------------

    async def _open(self, options: dict[str, Any], deadline: float) -> None:
        assert self._thread is not None
        async with asyncio.timeout_at(deadline):
            await self._client.connect(**options)
            if options["tls"] is not None and not self._thread.encrypted:
                raise ConfigError(f"{self._where}: the server offers no TLS, which this pipeline asks for")
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
            info = await self._stream()
        limit = info.config.max_msg_size or -1
        self.largest_bytes = min(self._client.max_payload, limit) if limit > 0 else self._client.max_payload
        if info.config.no_ack:
            raise ConfigError(f"{self._where}: it acknowledges nothing (no_ack), so no delivery could be known")

    async def _stream(self) -> "StreamInfo":
        wanted = self._config
        manager = self._client.jsm(timeout=wanted.timeout_ms / 1000)
        subjects = wanted.stream_subjects or [wanted.stream, f"{wanted.stream}.>"]
        try:
            return await manager.stream_info(wanted.stream)
        except nats.js.errors.ServiceUnavailableError as error:
            if error.err_code is not None:
                raise
            # Not an answer: nobody serves JetStream's requests here.
            raise ConfigError(
                f"{self._where}: the server has no JetStream; enable it (nats-server -js), and for this account"
            ) from error
        except nats.js.errors.NotFoundError as error:
            if not wanted.create_stream:
                raise ConfigError(
                    f"{self._where}: there is no such stream; create it "
                    f"(nats stream add {wanted.stream} --subjects '{','.join(subjects)}' --defaults) "
                    "or set create_stream to true"
                ) from error
        stream = StreamConfig(
            name=wanted.stream,
            subjects=subjects,
            num_replicas=wanted.replicas,
            duplicate_window=wanted.duplicate_window_ms / 1000,
        )
        return await manager.add_stream(stream)

    async def _publish(self, chunk: "Sequence[Outgoing]", deadline: float) -> dict[int, Failure]:
        self._waiting, self._failures = {}, {}
        for count, outgoing in enumerate(chunk, 1):
            if self._lost is not None:
                raise self._lost
            await self._send(outgoing)
            if count % _RECORDS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout_at(deadline):
                while self._waiting and self._lost is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            for late in self._waiting.values():
                reason = f"no acknowledgement within {self._config.timeout_ms} ms"
                self._failures[late.position] = Failure(late.position, False, "timeout", reason)
        if self._lost is not None:
            raise self._lost
        return self._failures

    async def _send(self, outgoing: "Outgoing") -> None:
        self._number += 1
        self._waiting[self._number] = outgoing
        try:
            await self._client.publish(
                outgoing.subject, outgoing.body, reply=f"{self._inbox}.{self._number}", headers=outgoing.headers
            )
        except nats.errors.Error as error:
            permanent, code = verdict(error)
            if not permanent:
                raise
            del self._waiting[self._number]
            self._failures[outgoing.position] = Failure(outgoing.position, True, code, str(error))

    async def _on_answer(self, message: "Msg") -> None:
        # A late answer to an earlier batch has a number that nobody waits for any more.
        outgoing = self._waiting.pop(int(message.subject[len(self._inbox) + 1 :]), None)
        if outgoing is None:
            return
        if not message.data.startswith(self._stored):
            failure = self._refusal(outgoing, message)
            if failure is not None:
                self._failures[outgoing.position] = failure
        if not self._waiting:
            self._news.set()

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
            permanent, code = verdict(error)
            return Failure(outgoing.position, permanent, code, f"{error.description} ({error.err_code})")
        except (ValueError, TypeError, KeyError):
            pass
        # Somebody else subscribes to this subject and answers.
        reason = f"an answer that is not from stream {self._config.stream!r}: {message.data[:100]!r}"
        return Failure(outgoing.position, False, "rejected", reason)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        # A publish that is not permitted gets this line and never an acknowledgement.
        if verdict(error)[1] == "forbidden":
            self._lost = error
            self._news.set()

    async def _on_closed(self) -> None:
        self._lost = self._lost or self._client.last_error or nats.errors.ConnectionClosedError()
        self._news.set()

    def _translated(self, error: Exception, *, opening: bool) -> RelayError:
        if isinstance(error, TimeoutError | nats.errors.NoServersError):
            # What came before says why.
            error = self._lost or self._last_error or error
        _, code = verdict(error)
        text = mask(f"{self._where}: {str(error) or f'no answer within {self._config.timeout_ms} ms'}")
        return ConfigError(text) if opening and code in FOR_A_PERSON else NotConnected(text, code=code)


class LoopThread:
    """A thread that runs an asyncio loop until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def encrypted(self) -> bool:
        return self._loop.encrypted

    def call(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """The result of `work`, or its exception. Raises TimeoutError, and NotConnected if the loop is stopped."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise NotConnected("the sink was closed", code="closed") from None
        try:
            return future.result(seconds)
        except concurrent.futures.CancelledError:
            raise NotConnected("the sink was closed", code="closed") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Ends every connection and task of the loop, and the thread. May be called twice."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_up())
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        for transport in self._loop.transports:
            transport.abort()
        # The client swallows some cancellations, so ask more than once.
        for _ in range(5):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)


class _Loop(asyncio.SelectorEventLoop):
    """Remembers its transports: a connection to a server that hangs can be closed only by aborting it."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[asyncio.WriteTransport] = []
        self.encrypted = False

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **options)
        self.transports.append(transport)
        return transport, protocol

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        transport = await super().start_tls(*args, **options)
        self.encrypted = True
        return transport
