"""Bearer tokens: full ones, and those that only read (RFC 6750)."""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.requests import Request

from relay.web.admin.errors import Problem

_READING = ("GET", "HEAD", "OPTIONS")


class Tokens:
    """Compared in constant time, as digests: neither the length nor a prefix of a token can be measured."""

    def __init__(self, full: Iterable[str], read_only: Iterable[str]) -> None:
        self._full = [_digest(token) for token in full]
        self._read_only = [_digest(token) for token in read_only]

    def __bool__(self) -> bool:
        return bool(self._full or self._read_only)

    def check(self, request: Request) -> None:
        """Raises Problem: 401 without a known token, 403 where it may only read."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = _digest(token.strip())
        known = scheme.lower() == "bearer" and token.strip() != ""
        is_full, is_read_only = _among(given, self._full), _among(given, self._read_only)
        if not (known and (is_full or is_read_only)):
            raise Problem(
                401, "unauthorized", "Give a token: Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"}
            )
        if not is_full and request.method not in _READING:
            raise Problem(403, "forbidden", "This token only reads. Use one of RELAY_API_AUTH_TOKENS.")


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogateescape")).digest()


def _among(given: bytes, known: list[bytes]) -> bool:
    """All are compared, so that the time says nothing."""
    return any([hmac.compare_digest(given, each) for each in known])  # noqa: C419
