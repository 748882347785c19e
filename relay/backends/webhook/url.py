"""The URL of a receiver. That of a webhook is a template whose scheme, host and port are constant.

What a variable stands for is percent-encoded, so it is one part of the path or one value of the query and nothing else:
no message can choose another host, climb out of the path, or add a parameter.
"""

import re
import string
from dataclasses import dataclass
from urllib.parse import quote

from relay.backends.webhook.hosts import ascii_host, port_of
from relay.errors import ConfigError
from relay.models import Record
from relay.wire.templates import RecordTemplate

_URL = re.compile(r"(?i)(https?)://(\[[^\]/?#@]*\]|[^/?#:@\[\]{}\s]+)(?::([^/?#@:]*))?([/?].*)?", re.DOTALL)
# What may stand in a path or a query, in addition to letters and digits. What is encoded already stays so.
_SAFE = "/?:@!$&'()*+,;=-._~%"
_CLIMBS = re.compile(r"/\.{1,2}(?=/|$)")
LONGEST_TARGET = 16_384
"""Characters. RFC 9110 recommends that every server takes 8,000."""
BAD_URL = (
    "a variable in the path of url is empty (does this message lack it?), or makes '.' or '..' of a part of it, or the "
    f"URL is longer than {LONGEST_TARGET} characters"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FRAGMENT = "has a fragment (#...), which is never sent to a server"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a webhook connects to."""

    scheme: str
    host: str
    """As DNS knows it: ASCII, without brackets."""
    port: int

    @property
    def header(self) -> bytes:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode()

    def __str__(self) -> str:
        return f"{self.scheme}://{self.header.decode()}"


class UrlTemplate:
    """A URL that was understood.

    Raises ConfigError for one that cannot be used; it does not repeat the URL, which may be a secret.
    """

    def __init__(self, text: str) -> None:
        try:
            RecordTemplate(text, "url")
        except ConfigError as error:
            raise ConfigError(str(error).replace(f" {text!r}", "")) from None
        parts = [(literal, name) for literal, name, _, _ in string.Formatter().parse(text)] or [("", None)]
        first, variable = parts[0]
        match = _URL.fullmatch(first)
        if not match or (match[4] is None and variable is not None):
            raise ConfigError(
                _what_is_wrong(first, "host and port before any variable: a message must not choose the receiver")
            )
        if any("#" in literal for literal, _ in parts):
            raise ConfigError(_FRAGMENT)
        self.origin, path = _taken_apart(match)
        parts[0] = (path, variable)
        self._parts = [(quote(literal, safe=_SAFE), name and RecordTemplate(f"{{{name}}}")) for literal, name in parts]
        self._constant = self._parts[0][0].encode() if len(parts) == 1 and variable is None else None

    def target(self, record: Record) -> bytes | None:
        """Path and query for this record; None for one that may not be sent: see `BAD_URL`."""
        if self._constant is not None:
            return self._constant
        made = ""
        for literal, variable in self._parts:
            made += literal
            if variable:
                value = quote(variable.render(record), safe="")
                if not value and "?" not in made:
                    return None
                made += value
        if len(made) > LONGEST_TARGET or _CLIMBS.search(made.partition("?")[0]):
            return None
        return made.encode()


def parse_url(text: str) -> tuple[Origin, bytes]:
    """Of a URL without variables: where to connect to; path and query. Raises ConfigError, which does not repeat it."""
    if "#" in text:
        raise ConfigError(_FRAGMENT)
    match = _URL.fullmatch(text)
    if not match:
        raise ConfigError(_what_is_wrong(text, "a host"))
    origin, path = _taken_apart(match)
    try:
        target = quote(path, safe=_SAFE).encode()
    except UnicodeEncodeError:
        raise ConfigError("has half a surrogate pair in it, which UTF-8 cannot hold") from None
    if len(target) > LONGEST_TARGET:
        raise ConfigError(f"is longer than {LONGEST_TARGET} characters")
    return origin, target


def _taken_apart(match: re.Match[str]) -> tuple[Origin, str]:
    scheme = match[1].lower()
    path = match[4] or "/"
    origin = Origin(scheme, ascii_host(match[2]), port_of(match[3], _DEFAULT_PORTS[scheme]))
    return origin, "/" + path if path.startswith("?") else path


def _what_is_wrong(first: str, needed: str) -> str:
    """Why this is not the beginning of a URL."""
    if not re.match(r"(?i)https?://", first):
        return "must begin with https:// (or http://, with allow_http)"
    authority = re.split(r"[/?#]", first.partition("://")[2])[0]
    if "@" in authority:
        return "has a user or a password in it: use auth"
    return f"must name {needed}"
