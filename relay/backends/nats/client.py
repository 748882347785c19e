"""One connection to NATS JetStream: what the sink's and the source's share. Nothing asynchronous leaves here.

The client never reconnects on its own: a lost connection is NotConnected, and the caller decides when to open again.
"""

import asyncio
import binascii
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
import nats.js.errors
import nkeys
from nats.aio.client import Client, RawCredentials

from relay.backends.common.tls import read_file, tls_context
from relay.backends.nats.arrived import UNREADABLE
from relay.backends.nats.config import NatsKeys
from relay.backends.nats.errors import ERRORS
from relay.backends.nats.loop import LoopThread
from relay.errors import ConfigError, NotConnected, RelayError
from relay.process.unforeseen import described

if TYPE_CHECKING:
    from nats.js.api import StreamInfo

T = TypeVar("T")

_CLOSE_SECONDS = 2.0

CLIENT_FAILURES = (nats.errors.Error, nkeys.NkeysError, binascii.Error, OSError)
"""Everything that the client raises while it connects or asks; TimeoutError is an OSError."""


class ClientWithNet(Client):
    """nats-py stops reading, without a word, at a message whose headers it cannot read: that would stop its stream."""

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception as error:  # noqa: BLE001  an inline status that is not ASCII; no end of the line; ...
            return {UNREADABLE: described(error)}
        return found


class NatsClient:
    """`open` and `close` block the caller; `close` may come from another thread at any time.

    Bound to one stream. A lost connection stays lost: make a new one.
    """

    def __init__(
        self,
        keys: NatsKeys,
        timeout_ms: int,
        pipeline: str,
        where: str,
        begin: Callable[[], Awaitable[None]],
        **options: Any,
    ) -> None:
        """`begin` is done in the loop once connected, before the connection counts as open. `options` are more of the
        client's own."""
        self._keys = keys
        self._timeout_ms = timeout_ms
        self._pipeline = pipeline
        self._where = where
        self._thread: LoopThread | None = None
        self._begin = begin
        self._options = options
        self.client = ClientWithNet()
        self.news = asyncio.Event()
        """Set when something has changed for those that wait in the loop, such as a lost connection."""
        self._last_error: Exception | None = None
        self.lost: Exception | None = None
        """Why the connection is of no use any more."""

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        options = connect_options(self._keys, self._where, self._timeout_ms) | {
            "name": f"tide-relay {self._pipeline}",
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
        }
        seconds = self._timeout_ms / 1000
        self._thread = LoopThread(f"nats-{self._pipeline}")
        try:
            self._thread.call(self._open(options | self._options, time.monotonic() + seconds), seconds + 1)
        except CLIENT_FAILURES as error:
            raise self._translated(error, opening=True) from error

    def close(self) -> None:
        if self._thread is not None:
            if self.client.is_connected:
                # Even if an orderly close fails, stop() ends the connection.
                with contextlib.suppress(nats.errors.Error, OSError, NotConnected):
                    self._thread.call(self.client.close(), _CLOSE_SECONDS)
            self._thread.stop()

    def call(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """What `work` gives, done in the loop, in that time at most. Raises NotConnected."""
        if self._thread is None:
            work.close()
            raise NotConnected(f"{self._where}: not open", code="closed")
        try:
            return self._thread.call(work, seconds)
        except CLIENT_FAILURES as error:
            raise self._translated(error, opening=False) from error

    def raise_if_lost(self) -> None:
        if self.lost is not None:
            raise self.lost

    # Inside the loop ------------------------------------------------------------------------------

    async def _open(self, options: dict[str, Any], deadline: float) -> None:
        assert self._thread is not None
        async with asyncio.timeout_at(deadline):
            await self.client.connect(**options)
            if options["tls"] is not None and not self._thread.encrypted:
                raise ConfigError(f"{self._where}: the server offers no TLS, which this pipeline asks for")
            await self._begin()

    async def stream_info(self) -> "StreamInfo | None":
        """None: there is no such stream. Raises ConfigError where there is no JetStream."""
        try:
            return await self.client.jsm(timeout=self._timeout_ms / 1000).stream_info(self._keys.stream)
        except nats.js.errors.ServiceUnavailableError as error:
            if error.err_code is not None:
                raise
            # Not an answer: nothing serves JetStream's requests here.
            raise ConfigError(
                f"{self._where}: the server has no JetStream; enable it (nats-server -js), and for this account"
            ) from error
        except nats.js.errors.NotFoundError:
            return None

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        # What is not permitted gets this line and never an answer.
        if ERRORS.verdict(error).code == "forbidden":
            self.lost = error
            self.news.set()

    async def _on_closed(self) -> None:
        self.lost = self.lost or self.client.last_error or nats.errors.ConnectionClosedError()
        self.news.set()

    def _translated(self, error: Exception, *, opening: bool) -> RelayError:
        if isinstance(error, TimeoutError | nats.errors.NoServersError):
            # What came before says why.
            error = self.lost or self._last_error or error
        reason = str(error) or f"no answer within {self._timeout_ms} ms"
        return ERRORS.translated(error, self._where, opening=opening, reason=reason)


def connect_options(keys: NatsKeys, where: str, timeout_ms: int) -> dict[str, Any]:
    """The arguments of the client's `connect`. Raises ConfigError for a file that cannot be read or used."""
    return {
        "servers": list(keys.url),
        "user": keys.user,
        "password": keys.password,
        "token": keys.token,
        "user_credentials": _credentials(keys, where),
        "nkeys_seed_str": keys.nkey_seed,
        "tls": _tls(keys, where),
        "tls_handshake_first": keys.tls_first,
        "allow_reconnect": False,
        # Every server once and once more; 0 would mean without end.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.05,
        "connect_timeout": timeout_ms / 1000,
        "ping_interval": 30,
    }


def _credentials(keys: NatsKeys, where: str) -> RawCredentials | None:
    if keys.creds_file is None:
        return None
    text = read_file(keys.creds_file, "creds_file", where).decode(errors="replace")
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(f"{where}: creds_file {keys.creds_file!r} has no user JWT or no seed in it")
    return RawCredentials(text)


def _tls(keys: NatsKeys, where: str) -> ssl.SSLContext | None:
    wanted = keys.asks_for_tls or keys.tls_first or any(url.startswith(("tls://", "wss://")) for url in keys.url)
    return tls_context(keys, where) if wanted else None
