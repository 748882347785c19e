"""What an error of RabbitMQ means: one table for the client's exceptions, one for words of the server's answers.

Each answer is (permanent, code). Permanent: this record will never be accepted and becomes a dead letter. Everything
else is tried again; where that cannot help until a person acts, the code is in `NEEDS_OPERATOR`, and `open` then raises
ConfigError. Unknown errors count as temporary: a blocked pipeline can be seen and mended.
"""

import re

from relay.errors import ConfigError, NotConnected, RelayError
from relay.masking import mask

NEEDS_OPERATOR = frozenset({"auth", "forbidden", "tls", "not_found", "bad_config"})

CLIENT_ERRORS: dict[str, tuple[bool, str]] = {
    # Who we are, and how we or the server were configured.
    "AccessRefused": (False, "forbidden"),
    "NotAllowed": (False, "forbidden"),
    "InvalidPath": (False, "forbidden"),
    "NotFound": (False, "not_found"),
    "PreconditionFailed": (False, "bad_config"),
    "AMQPNotImplementedError": (False, "bad_config"),
    "InvalidCommand": (False, "bad_config"),
    # The record's own fault.
    "ContentTooLarge": (True, "too_large"),
    # The connection, and what the server does not do now.
    "ConnectionError": (False, "not_connected"),
    "ConnectionForced": (False, "not_connected"),
    "RecoverableConnectionError": (False, "not_connected"),
    "IrrecoverableConnectionError": (False, "not_connected"),
    "ChannelError": (False, "rejected"),
    "RecoverableChannelError": (False, "rejected"),
    "IrrecoverableChannelError": (False, "rejected"),
    "AMQPError": (False, "rejected"),
    "MessageNacked": (False, "nacked"),
    "Blocked": (False, "blocked"),
    "ConsumerCancelled": (False, "cancelled"),
    "NoConsumers": (False, "unavailable"),
    "ResourceLocked": (False, "locked"),
    "ResourceError": (False, "limits"),
    "InternalError": (False, "unavailable"),
    "ChannelNotOpen": (False, "protocol"),
    "FrameError": (False, "protocol"),
    "FrameSyntaxError": (False, "protocol"),
    "UnexpectedFrame": (False, "protocol"),
    # The system.
    "SSLCertVerificationError": (False, "tls"),
    "SSLError": (False, "tls"),
    "TimeoutError": (False, "timeout"),
    "OSError": (False, "not_connected"),
}

ANSWERS: tuple[tuple[str, tuple[bool, str]], ...] = (
    # Words of the server's reply, where its code alone says too little.
    ("login was refused", (False, "auth")),
    ("appropriate auth mechanism", (False, "auth")),
    # "connection limit (10) is reached", of a user or a virtual host: 530, which is also "no such virtual host".
    (" limit (", (False, "limits")),
    ("acknowledgement on channel", (False, "timeout")),  # consumer_timeout of the server
)

_TOO_LARGE = re.compile(r"message size \d+ (?:is )?larger than (?:configured )?max size (\d+)")


def verdict(error: BaseException) -> tuple[bool, str]:
    """(permanent, code) of anything that the client raised."""
    text = str(error).lower()
    for words, answer in ANSWERS:
        if words in text and not isinstance(error, OSError):
            return answer
    for kind in type(error).__mro__:
        if kind.__name__ in CLIENT_ERRORS:
            return CLIENT_ERRORS[kind.__name__]
    return (False, "not_connected")


def largest_message_bytes(error: BaseException) -> int | None:
    """The server's `max_message_size`, where it closed the channel for a message above it. It tells nobody before."""
    found = _TOO_LARGE.search(str(error))
    return int(found[1]) if found else None


def translated(error: BaseException, where: str, *, opening: bool) -> RelayError:
    """The error to raise instead."""
    _, code = verdict(error)
    reason = getattr(error, "reply_text", None) or str(error) or type(error).__name__
    if code == "cancelled":  # the text is the consumer's name
        reason = "the server ended the consumer: the queue was deleted, or its node failed"
    text = mask(f"{where}: {reason}")
    return ConfigError(text) if opening and code in NEEDS_OPERATOR else NotConnected(text, code=code)
