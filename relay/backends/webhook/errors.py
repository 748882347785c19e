"""What an error of a webhook means: one table for the client's exceptions, one rule for HTTP's status.

Each answer is (permanent, code). Permanent: the receiver will never accept this record, which becomes a dead letter.
An answer that speaks of the address rather than of the record (a redirect), and everything that the receiver did not
answer, is tried again: a blocked pipeline can be seen and mended.
"""

import ssl
from collections.abc import Collection

NEEDS_OPERATOR = frozenset({"tls", "forbidden_address"})
"""Trying again cannot help until somebody acts; `open` then raises ConfigError."""

CLIENT_ERRORS: dict[str, tuple[bool, str]] = {
    "httpcore.ConnectError": (False, "not_connected"),
    "httpcore.ReadError": (False, "not_connected"),
    "httpcore.WriteError": (False, "not_connected"),
    "httpcore.NetworkError": (False, "not_connected"),
    # The receiver hung up, or what it answers is no HTTP.
    "httpcore.RemoteProtocolError": (False, "not_connected"),
    "httpcore.ProtocolError": (False, "not_connected"),
    "httpcore.ConnectTimeout": (False, "timeout"),
    "httpcore.ReadTimeout": (False, "timeout"),
    "httpcore.WriteTimeout": (False, "timeout"),
    "httpcore.PoolTimeout": (False, "timeout"),
    "httpcore.TimeoutException": (False, "timeout"),
    # Headers are checked before they get here, so this is ours to mend.
    "httpcore.LocalProtocolError": (False, "bad_request"),
    # Not used: proxies, other protocols, HTTP/2.
    "httpcore.ProxyError": (False, "not_connected"),
    "httpcore.UnsupportedProtocol": (False, "bad_request"),
    "httpcore.ConnectionNotAvailable": (False, "not_connected"),
    "relay.backends.webhook.network.ForbiddenAddress": (False, "forbidden_address"),
}

TRIED_AGAIN = frozenset({408, 425, 429})
"""Of the statuses from 400 to 499; those of `retry_on` come on top."""

ABOUT_THE_BODY = frozenset({400, 413, 422})
"""Permanent answers that a smaller batch may not get."""


def verdict(error: BaseException) -> tuple[bool, str]:
    """(permanent, code) of anything that the client raised."""
    if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, ssl.SSLEOFError):
        return (False, "tls")
    for kind in type(error).__mro__:
        answer = CLIENT_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
        if answer:
            return answer
    return (False, "timeout" if isinstance(error, TimeoutError) else "not_connected")


def status_verdict(status: int, retry_on: Collection[int]) -> tuple[bool, str] | None:
    """(permanent, code) of an HTTP status; None if it means delivered."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return (False, "redirect")
    permanent = 400 <= status < 500 and status not in TRIED_AGAIN and status not in retry_on
    return (permanent, f"http_{status}")
