"""One receiver of webhooks: its connections, and one request after the other to each.

httpcore is what httpx is made of. It is used without the layer above, because only here can one say which addresses may
be reached, and because what httpx adds (redirects, cookies, proxies of the environment) must not happen to a webhook.
"""

import base64
import email.utils
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus
from typing import NamedTuple

import httpcore

import relay
from relay.backends.common.deadline import in_ms
from relay.backends.common.short_cache import cached_if_short
from relay.backends.common.tls import tls_context
from relay.backends.webhook.config import OURS, Basic, WebhookSinkConfig, is_header_name
from relay.backends.webhook.errors import ERRORS, status_verdict
from relay.backends.webhook.network import ForbiddenAddress, Network
from relay.backends.webhook.signatures import sign_standard, standard_key
from relay.backends.webhook.url import Origin
from relay.known_secrets import spare
from relay.masking import mask
from relay.models import Failure

CLIENT_ERRORS = (
    httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol,
    httpcore.ProxyError, httpcore.ConnectionNotAvailable, ForbiddenAddress,
)  # fmt: skip

LONGEST_PAUSE_SECONDS = 3600.0
_SHOWN_CHARACTERS = 1024
# How much of an answer is read so that its connection can be used again.
_READ_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 30.0
_CONTROL = dict.fromkeys([*range(32), 127], " ")


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
        self._keys = [standard_key(secret) for secret in config.secrets]
        own = _constant_headers(config)
        self._forbidden = OURS | {name.lower() for name in own} - {"content-type"}
        self._headers = [(b"Host", origin.header), *((name.encode(), value.encode()) for name, value in own.items())]
        self._content_type = any(name.lower() == "content-type" for name in own)
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
            headers = self._headers_of(outgoing)
        except ValueError as error:
            return Failure(outgoing.position, True, "bad_header", mask(str(error)))
        url = httpcore.URL(
            scheme=self._origin.scheme.encode(), host=self._origin.host.encode(), port=self._origin.port,
            target=outgoing.target,
        )  # fmt: skip
        request = httpcore.Request(self._config.method, url, headers=headers, content=outgoing.body)
        try:
            with self._network.until(min(deadline, time.monotonic() + self._limit_seconds)):
                response = self._pool.handle_request(request)
                try:
                    return self._judge(outgoing.position, response)
                finally:
                    response.close()
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

    def _headers_of(self, outgoing: Outgoing) -> list[tuple[bytes, bytes]]:
        """Raises ValueError for a name that HTTP cannot carry."""
        headers = list(self._headers)
        has_type = self._content_type
        for name, value in outgoing.headers.items():
            lower = _checked_name(name)
            if lower in self._forbidden:
                continue
            if lower == "content-type":
                if has_type:
                    continue
                has_type = True
            headers.append((name.encode(), value.translate(_CONTROL).strip().encode()))
        if not has_type:
            headers.append((b"Content-Type", b"application/json"))
        message_id = outgoing.message_id.encode()
        seconds = int(time.time())
        headers += [
            (b"Content-Length", b"%d" % len(outgoing.body)),
            (b"Idempotency-Key", message_id),
            (b"webhook-id", message_id),
            (b"webhook-timestamp", b"%d" % seconds),
        ]
        if self._keys:
            signature = sign_standard(self._keys, outgoing.message_id, seconds, outgoing.body)
            headers.append((b"webhook-signature", signature.encode()))
        return headers

    def _judge(self, position: int, response: httpcore.Response) -> Failure | None:
        answer = status_verdict(response.status, self._config.retry_on)
        # More than is shown: a secret that the end cuts in half would not be recognized.
        text = _read(response, _READ_BYTES if answer is None else _SHOWN_CHARACTERS + 2 * spare())
        if answer is None:
            return None
        permanent, code = answer
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        pause = None if permanent else retry_after_seconds(headers.get(b"retry-after"), time.time())
        reason = f"answered {response.status} {_phrase(response.status)}".rstrip()
        if code == "redirect":
            reason += ", and redirects are not followed: put the new address into url"
        if shown := " ".join(text.decode(errors="replace").translate(_CONTROL).split()):
            reason += f": {mask(shown, most_characters=_SHOWN_CHARACTERS)}"
        return Failure(position, permanent, code, reason, pause)


def _constant_headers(config: WebhookSinkConfig) -> dict[str, str]:
    headers = dict(config.headers)
    if isinstance(config.auth, Basic):
        pair = f"{config.auth.user}:{config.auth.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    elif config.auth is not None:
        headers["Authorization"] = f"Bearer {config.auth.token}"
    if not any(name.lower() == "user-agent" for name in headers):
        headers["User-Agent"] = f"tide-relay/{relay.__version__}"
    return headers


@cached_if_short
def _checked_name(name: str) -> str:
    if not is_header_name(name):
        raise ValueError(f"{name[:80]!r} cannot be the name of a header")
    return name.lower()


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


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """How long `Retry-After` asks for, within an hour: seconds or a date. None where it says nothing sensible."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_PAUSE_SECONDS, float(text[:9]))
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - now_seconds
    except (ValueError, OverflowError):
        return None
    return min(LONGEST_PAUSE_SECONDS, max(0.0, seconds))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
