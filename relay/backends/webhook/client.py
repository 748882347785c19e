"""One receiver of webhooks: its connections, and one request after the other to each.

httpcore is what httpx is made of. It is used without the layer above, because only here can one say which addresses may
be reached, and because what httpx adds (redirects, cookies, proxies of the environment) must not happen to a webhook.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import httpcore

from relay.backends.common.addresses import ForbiddenAddress
from relay.backends.common.deadline import in_ms
from relay.backends.common.tls import tls_context
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.errors import ERRORS, refusal
from relay.backends.webhook.headers import without_controls
from relay.backends.webhook.network import Network
from relay.backends.webhook.status_line import decided
from relay.backends.webhook.url import Origin
from relay.known_secrets import spare
from relay.masking import mask
from relay.models import Failure

CLIENT_ERRORS = (
    httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol,
    httpcore.ProxyError, httpcore.ConnectionNotAvailable, ForbiddenAddress,
)  # fmt: skip

# What comes of an answer that is not HTTP, or not whole.
_BROKEN_ANSWERS = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.ReadTimeout)

_SHOWN_CHARACTERS = 1024
# How much of an answer is read so that its connection can be used again.
_READ_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 30.0
# How long a body may take once its status has said what becomes of the message.
_BODY_SECONDS = 5.0


class Outgoing(NamedTuple):
    """What one request carries."""

    message_id: str
    """For the receiver to know a repetition by."""
    target: bytes
    """Path and query."""
    body: bytes
    headers: Mapping[str, str]
    position: int
    """In the batch; of the first record, where there are several."""


class WebhookClient:
    """`open` and `send` block the caller; `send` may be used by several threads; `close` may come from any thread."""

    def __init__(self, config: WebhookSinkConfig, origin: Origin, where: str) -> None:
        self._config = config
        self._origin = origin
        self._where = where
        self._network = Network(allow_private=config.allow_private_network)
        self._context = tls_context(config, where) if origin.scheme == "https" else None
        self._pool = httpcore.ConnectionPool(
            ssl_context=self._context,
            max_connections=config.max_in_flight,
            max_keepalive_connections=config.max_in_flight,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=self._network,
        )
        self._headers = config.request_headers
        self._limit_seconds = (config.request_timeout_ms or config.timeout_ms) / 1000
        self._busy = threading.Lock()
        self.closed = False
        self.helpers: Executor | None = None
        if config.max_in_flight > 1:
            self.helpers = ThreadPoolExecutor(config.max_in_flight - 1, thread_name_prefix="webhook")

    def open(self) -> None:
        """Connects once, to see that name, address and certificate are good. Raises NotConnected or ConfigError."""
        try:
            with self._network.until(in_ms(self._config.timeout_ms)):
                stream = self._network.connect_tcp(self._origin.host, self._origin.port)
                try:
                    if self._context is not None:
                        self._context.set_alpn_protocols(["http/1.1"])
                        stream = stream.start_tls(self._context, self._origin.host)
                finally:
                    stream.close()
        except CLIENT_ERRORS as error:
            raise ERRORS.translated(error, self._where, opening=True) from error

    def send(self, outgoing: Outgoing, deadline: float) -> Failure | None:
        """None when it was delivered. `deadline` of the monotonic clock."""
        try:
            headers = self._headers.of(self._origin.header, outgoing.message_id, outgoing.body, outgoing.headers)
        except ValueError as error:
            return Failure(outgoing.position, True, "bad_header", mask(str(error)))
        url = httpcore.URL(
            scheme=self._origin.scheme.encode(), host=self._origin.host.encode(), port=self._origin.port,
            target=outgoing.target,
        )  # fmt: skip
        request = httpcore.Request(self._config.method, url, headers=headers, content=outgoing.body)
        try:
            with self._network.until(min(deadline, time.monotonic() + self._limit_seconds)):
                try:
                    response = self._pool.handle_request(request)
                except _BROKEN_ANSWERS:
                    if (decision := decided(self._network.begun)) is None:
                        raise
                    return self._judge(outgoing.position, *decision)
                with contextlib.closing(response):
                    return self._judge_response(outgoing.position, response)
        except CLIENT_ERRORS as error:
            permanent, code = ERRORS.verdict(error)
            return Failure(outgoing.position, permanent, code, mask(str(error) or type(error).__name__))

    def close(self) -> None:
        """Ends what is being sent. May be called twice."""
        self.closed = True
        self._network.abort()
        if self.helpers is not None:
            self.helpers.shutdown(wait=True)
        with self._busy:
            self._pool.close()

    def hold(self) -> threading.Lock:
        """Held while a batch is being sent, so that `close` takes nothing away from below it."""
        return self._busy

    def _judge_response(self, position: int, response: httpcore.Response) -> Failure | None:
        retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
        self._network.hurry(_BODY_SECONDS)
        text = _read(response, _READ_BYTES)
        if not _is_clean(response):
            response.extensions["network_stream"].close()
        return self._judge(position, response.status, retry_after, text)

    def _judge(self, position: int, status: int, retry_after: bytes | None, body: bytes = b"") -> Failure | None:
        refused = refusal(status, retry_after, self._config.retry_on, "put the new address into url")
        if refused is None:
            return None
        # More than is shown: a secret that the end cuts in half would not be recognized.
        text = body[: _SHOWN_CHARACTERS + 2 * spare()]
        reason = refused.reason
        if shown := " ".join(without_controls(text.decode(errors="replace")).split()):
            reason += f": {mask(shown, most_characters=_SHOWN_CHARACTERS)}"
        return Failure(position, refused.permanent, refused.code, reason, refused.pause_seconds)


def _is_clean(response: httpcore.Response) -> bool:
    """Whether nothing has come beyond the end of the answer: it would be taken for that of the next request.

    httpcore does not look, and does not show its parser either.
    """
    try:
        trailing, _ = response.stream._stream._connection._h11_state.trailing_data  # type: ignore[union-attr]
    except AttributeError:
        return False
    return not trailing


def _read(response: httpcore.Response, limit_bytes: int) -> bytes:
    """The beginning of the body. What it costs to read is no part of the answer, which the status has given."""
    read = b""
    try:
        for piece in response.iter_stream():
            read += piece
            if len(read) >= limit_bytes:
                break
    except CLIENT_ERRORS:
        return read[:limit_bytes]
    return read[:limit_bytes]
