"""What an error of a webhook means: the client's exceptions, and one rule for HTTP's status.

An answer that is about the address and not about the record (a redirect), and everything that the receiver did not
answer, is retried.
"""

import ssl
from collections.abc import Collection, Iterator

from relay.backends.common.error_table import ErrorTable, Verdict


def _refused_certificate(error: BaseException) -> Iterator[str]:
    if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, ssl.SSLEOFError):
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
        "relay.backends.webhook.network": {"forbidden_address": "ForbiddenAddress"},
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
