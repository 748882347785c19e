"""An HTTP job: its payload as a request, and the keys of a queue for its requests.

The payload comes from an application, the keys from an operator; the rights of the two differ. So a payload
cannot name a secret, and a secret of the keys goes only to hosts that the keys name.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import msgspec
from pydantic import ConfigDict, Field, field_validator, model_validator

from relay import reach
from relay.backends.common.addresses import check_literal
from relay.backends.common.keys import has_reference
from relay.backends.common.short_cache import cached_if_short
from relay.backends.webhook.config import PLAIN_HEADERS, ReceiverKeys, check_scheme
from relay.backends.webhook.headers import check_headers
from relay.backends.webhook.hosts import ascii_host
from relay.backends.webhook.url import Origin, parse_url
from relay.errors import ConfigError
from relay.jobs.errors import BadArguments

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
KEYS = ("url", "method", "json", "text", "base64")
JOB_HEADERS = frozenset({"x-pgrelay-job-id", "x-pgrelay-attempt", "x-pgrelay-trace-id"})
"""In lower case. Those of all requests, which no one else may set either, are `headers.OURS`."""
MOST_HEADERS = 64
MOST_HEADER_CHARACTERS = 16_384

BODIES = {"json": b"application/json", "text": b"text/plain; charset=utf-8", "base64": b"application/octet-stream"}
_WITHOUT_BODY = ("GET", "HEAD")


class BadHttpJob(BadArguments):
    """The payload or the headers of an HTTP job: no retry helps. `code` is a short stable word."""

    def __init__(self, text: str, code: str = "bad_payload") -> None:
        super().__init__(text)
        self.code = code


class Hosts:
    """Which hosts may be named: `api.example.com`, or `*.example.com` for all below it. None named: every host."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises ConfigError."""
        patterns = [pattern.strip() for pattern in patterns]
        self.named = bool(patterns)
        below = [pattern.removeprefix("*.") for pattern in patterns if pattern.startswith("*.")]
        self._exactly = frozenset(_host(pattern) for pattern in patterns if not pattern.startswith("*."))
        self._below = tuple("." + _host(pattern) for pattern in below)

    def allow(self, host: str) -> bool:
        """`host` as `ascii_host` writes it."""
        return not self.named or host in self._exactly or host.endswith(self._below)


def _host(text: str) -> str:
    try:
        return ascii_host(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    except ConfigError as error:
        raise ConfigError(f"host {text!r} {error}") from None


class HttpKeys(ReceiverKeys):
    """The keys of a queue for its requests. Secrets are resolved by the time they are used."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    hosts: list[str] = Field(default=[])
    """Hosts that jobs of this queue may name, of those that the process allows; empty: all of those."""
    max_body_bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    """Of a request; a longer one is dead."""

    @field_validator("hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: list[str]) -> list[str]:
        try:
            Hosts(hosts)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return hosts

    @field_validator("headers")
    @classmethod
    def _headers_are_not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        check_headers(headers, JOB_HEADERS)
        return headers

    @model_validator(mode="after")
    def _secrets_have_their_hosts(self) -> Self:
        shows = self.auth is not None or self.tls_cert is not None
        if not self.hosts and (shows or any(name.lower() not in PLAIN_HEADERS for name in self.headers)):
            raise ValueError("headers, auth and tls_cert would go to every host that a job names: set hosts")
        return self


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What an HTTP job asks for."""

    method: str
    origin: Origin
    target: bytes
    """Path and query."""
    body: bytes | None
    content_type: bytes | None
    headers: Mapping[str, str]


def check_http_payload(payload: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
    """Before it is enqueued: whether a worker could send it. Returns the host. Raises BadHttpJob; it repeats no value.

    Whether JSON can hold the value of `json` is for the one that writes it. The hosts are those that this process
    allows, which are all of them where no settings were loaded. An address is refused that no queue can permit. Whether
    a private one may be reached is a setting of the queue, which an application cannot read, and which may change.
    """
    method, origin, _ = _line(payload)
    _body(payload, method)
    _checked_headers(headers or {})
    check_host(origin, allowed_hosts())
    try:
        check_literal(origin.host, allow_private=True)
    except ValueError as error:
        raise BadHttpJob(f"payload: url: {error}", "forbidden_address") from None
    return origin.host


def allowed_hosts() -> Hosts:
    """Those that jobs may name in this process. Raises ConfigError."""
    return Hosts(reach.in_force().job_http_hosts)


def read_http_job(payload: str, headers: str | None) -> HttpRequest:
    """As a claim hands it out. What is below `json` is not read: it is sent as it stands. Raises BadHttpJob."""
    try:
        raw = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        parts = {key: value if key == "json" else msgspec.json.decode(value) for key, value in raw.items()}
        theirs = msgspec.json.decode(headers) if headers else {}
    except (msgspec.MsgspecError, RecursionError):
        raise BadHttpJob("the payload of an HTTP job must be an object") from None
    method, origin, target = _line(parts)
    body = _body(parts, method)
    content_type = next((kind for key, kind in BODIES.items() if key in parts), None)
    return HttpRequest(method, origin, target, body, content_type, _checked_headers({} if theirs is None else theirs))


def check_host(origin: Origin, hosts: Hosts) -> None:
    """Raises BadHttpJob."""
    if not hosts.allow(origin.host):
        raise BadHttpJob(
            f"{origin.host} is not among the hosts that jobs may name: add it to RELAY_JOB_HTTP_HOSTS of the workers, "
            "and to hosts of the queue if it has any",
            "forbidden_host",
        )


def check_allow_http(origin: Origin, keys: HttpKeys) -> None:
    """Raises BadHttpJob."""
    try:
        check_scheme(origin.scheme, allow_http=keys.allow_http)
    except ValueError as error:
        raise BadHttpJob(f"{error} in the http keys of the queue", "bad_url") from None


def _line(parts: Mapping[str, Any]) -> tuple[str, Origin, bytes]:
    """The method, and where to."""
    if unknown := [key for key in parts if key not in KEYS]:
        raise BadHttpJob(f"payload: unknown key {str(unknown[0])[:80]!r}; known: {', '.join(KEYS)}")
    url, method = parts.get("url"), parts.get("method", "POST")
    if not isinstance(url, str):
        raise BadHttpJob("payload: url must be a text, such as https://example.com/hooks", "bad_url")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise BadHttpJob(f"payload: method must be one of {', '.join(METHODS)}")
    try:
        return method.upper(), *_parsed_url(url)
    except ConfigError as error:
        raise BadHttpJob(f"payload: url {error}", "bad_url") from None


_parsed_url = cached_if_short(parse_url)


def _body(parts: Mapping[str, Any], method: str) -> bytes | None:
    """Of `json` only what `read_http_job` has left as it stands; None for no body."""
    given = [key for key in BODIES if key in parts]
    if not given:
        return None if method in (*_WITHOUT_BODY, "DELETE") else b""
    if len(given) > 1:
        raise BadHttpJob(f"payload: {' and '.join(given)}: keep one of them")
    if method in _WITHOUT_BODY:
        raise BadHttpJob(f"payload: a request with {method} has no body: leave out {given[0]}, or use another method")
    value = parts[given[0]]
    if given[0] == "json":
        return bytes(value) if isinstance(value, msgspec.Raw) else b""
    if not isinstance(value, str):
        raise BadHttpJob(f"payload: {given[0]} must be a text")
    try:
        return value.encode() if given[0] == "text" else base64.b64decode(value, validate=True)
    except UnicodeEncodeError:
        raise BadHttpJob("payload: text has half a surrogate pair in it, which UTF-8 cannot hold") from None
    except (binascii.Error, ValueError):
        raise BadHttpJob("payload: base64 is not base64") from None


def _checked_headers(headers: Any) -> Mapping[str, str]:
    if not isinstance(headers, Mapping):
        raise BadHttpJob("headers must be an object of texts", "bad_header")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadHttpJob(f"headers: the value of {str(name)[:80]!r} must be a text", "bad_header")
        if has_reference(value):
            raise BadHttpJob(
                f"headers: {name[:80]!r} names a secret, and only the headers of the queue may: put it there",
                "bad_header",
            )
    if len(headers) > MOST_HEADERS or sum(len(n) + len(v) for n, v in headers.items()) > MOST_HEADER_CHARACTERS:
        raise BadHttpJob(
            f"headers: more than {MOST_HEADERS} headers or {MOST_HEADER_CHARACTERS} characters", "bad_header"
        )
    try:
        check_headers(headers, JOB_HEADERS)
        "".join(headers.values()).encode()
    except UnicodeEncodeError:
        raise BadHttpJob(
            "headers: a value has half a surrogate pair in it, which UTF-8 cannot hold", "bad_header"
        ) from None
    except ValueError as error:
        raise BadHttpJob(f"headers: {error}", "bad_header") from None
    return headers
