"""The headers of a request: which may be set by whom, and those that a receiver recognizes and verifies it by."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from relay.backends.common.short_cache import cached_if_short
from relay.backends.webhook.signatures import sign_standard

OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
                  "expect", "proxy-authorization", "proxy-connection", "webhook-id", "webhook-timestamp",
                  "webhook-signature", "idempotency-key"})  # fmt: skip
"""Headers, in lower case, that no one else may set: they frame the request, or the relay sets them."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = dict.fromkeys([*range(32), 127], " ")

RawHeaders = list[tuple[bytes, bytes]]


class RequestHeaders:
    """Makes the headers of each request by one configuration. Read-only once made."""

    def __init__(self, constant: Mapping[str, str], keys: Sequence[bytes]) -> None:
        """`constant` is sent with each request, `keys` sign it."""
        self._keys = keys
        self._constant = [(name.encode(), value.encode()) for name, value in constant.items()]
        names = {name.lower() for name in constant}
        self._has_type = "content-type" in names
        self._not_theirs = OURS | names - {"content-type"}

    def of(
        self,
        host: bytes,
        message_id: str,
        body: bytes | None,
        theirs: Mapping[str, str],
        content_type: bytes | None = b"application/json",
    ) -> RawHeaders:
        """`theirs` come with the message; those that are not for it to set are left out.

        A body of None is none at all, not an empty one. Raises ValueError for a name that HTTP cannot carry.
        """
        headers = [(b"Host", host), *self._constant]
        has_type = self._has_type
        for name, value in theirs.items():
            lower = _checked_name(name)
            if lower in self._not_theirs:
                continue
            if lower == "content-type":
                if has_type:
                    continue
                has_type = True
            headers.append((name.encode(), header_value(value)))
        if content_type is not None and not has_type:
            headers.append((b"Content-Type", content_type))
        if body is not None:
            headers.append((b"Content-Length", b"%d" % len(body)))
        encoded_id = message_id.encode()
        seconds = int(time.time())
        headers += [
            (b"Idempotency-Key", encoded_id),
            (b"webhook-id", encoded_id),
            (b"webhook-timestamp", b"%d" % seconds),
        ]
        if self._keys:
            signature = sign_standard(self._keys, message_id, seconds, body or b"")
            headers.append((b"webhook-signature", signature.encode()))
        return headers


def header_value(text: str) -> bytes:
    """UTF-8, in one line: no value can begin another header."""
    return without_controls(text).strip().encode()


def without_controls(text: str) -> str:
    """With a space for each line end and each other control character."""
    return text.translate(_CONTROL)


def is_header_name(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None


def check_headers(headers: Mapping[str, str], more_of_ours: Iterable[str] = ()) -> None:
    """Of someone who sets them for their requests. Raises ValueError, which repeats no value."""
    for name, value in headers.items():
        if not is_header_name(name):
            raise ValueError(f"{name[:80]!r} cannot be the name of a header")
        if name.lower() in OURS or name.lower() in more_of_ours:
            raise ValueError(f"{name} is set by the relay itself")
        if without_controls(value) != value:
            raise ValueError(f"the value of {name} has a line end or another control character in it")


@cached_if_short
def _checked_name(name: str) -> str:
    if not is_header_name(name):
        raise ValueError(f"{name[:80]!r} cannot be the name of a header")
    return name.lower()
