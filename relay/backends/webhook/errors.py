"""What an error of a request means: the exceptions of the clients, and one rule for HTTP's status.

An answer that is about the address and not about the record (a redirect), and everything that the receiver did not
answer, is retried.
"""

import email.utils
import ssl
import time
from collections.abc import Collection, Iterator
from datetime import UTC
from http import HTTPStatus
from typing import NamedTuple

from relay.backends.common.error_table import ErrorTable, Verdict


def _refused_certificate(error: BaseException) -> Iterator[str]:
    # httpcore's pool removes the cause; what its errors were made of is still their argument.
    for one in (error, error.__cause__, *error.args):
        if isinstance(one, ssl.SSLError) and not isinstance(one, ssl.SSLEOFError):
            yield "certificate"


ERRORS = ErrorTable(
    exceptions={
        "httpcore": {
            # The receiver hung up, or its answer is not HTTP; the last two are of proxies, which are not used.
            "not_connected": """ConnectError ReadError WriteError NetworkError RemoteProtocolError ProtocolError
                ProxyError ConnectionNotAvailable""",
            "timeout": "ConnectTimeout ReadTimeout WriteTimeout PoolTimeout TimeoutException",
            # Headers are checked before they get here, so this is a bug of the relay.
            "bad_request": "LocalProtocolError UnsupportedProtocol",
        },
        "h11._util": {"not_connected": "RemoteProtocolError ProtocolError", "bad_request": "LocalProtocolError"},
        "relay.backends.common.addresses": {"forbidden_address": "ForbiddenAddress"},
    },
    answers={"certificate": "tls"},
    needs_operator={"tls", "forbidden_address"},
    answers_of=_refused_certificate,
)

RETRIED = frozenset({408, 425, 429})
"""Of the statuses from 400 to 499; those of `retry_on` come on top."""

ABOUT_THE_BODY = frozenset({400, 413, 422})
"""Permanent answers that a smaller batch may not get."""


def status_verdict(status: int, retry_on: Collection[int]) -> Verdict | None:
    """Of an HTTP status; None if it means delivered."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Verdict(False, "redirect")
    permanent = 400 <= status < 500 and status not in RETRIED and status not in retry_on
    return Verdict(permanent, f"http_{status}")


LONGEST_PAUSE_SECONDS = 3600.0


class Refusal(NamedTuple):
    """An answer that does not mean delivered."""

    permanent: bool
    code: str
    reason: str
    """Of our own words: nothing that the receiver wrote."""
    pause_seconds: float | None
    """What `Retry-After` asks for, where a retry is of use."""


def refusal(status: int, retry_after: bytes | None, retry_on: Collection[int], where_to_fix: str) -> Refusal | None:
    """None if the answer means delivered. `where_to_fix` says what a redirect asks an operator to change."""
    verdict = status_verdict(status, retry_on)
    if verdict is None:
        return None
    permanent, code = verdict
    pause = None
    if retry_after and not permanent:
        pause = retry_after_seconds(retry_after.decode("latin-1"), time.time())
    reason = f"answered {status} {_phrase(status)}".rstrip()
    if code == "redirect":
        reason += f", and redirects are not followed: {where_to_fix}"
    return Refusal(permanent, code, reason, pause)


def retry_after_seconds(value: str | None, now_seconds: float) -> float | None:
    """How long `Retry-After` asks for, within an hour: seconds or a date. None where it says nothing sensible."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_PAUSE_SECONDS, float(text[:9]))
    try:
        date = email.utils.parsedate_to_datetime(text)
        # asctime's form names no zone: it is UTC, as every date of HTTP.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_seconds
    except (ValueError, OverflowError):
        return None
    return min(LONGEST_PAUSE_SECONDS, max(0.0, seconds))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
