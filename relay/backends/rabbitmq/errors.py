"""What an error of RabbitMQ means: the client's exceptions, and words of the server's replies."""

import re

from relay.backends.common.error_table import ErrorTable


def _reason(error: BaseException) -> str:
    if type(error).__name__ == "ConsumerCancelled":  # its text is the consumer's name
        return "the server ended the consumer: the queue was deleted, or its node failed"
    return getattr(error, "reply_text", None) or str(error)


ERRORS = ErrorTable(
    exceptions={
        "amqp.exceptions": {
            "forbidden": "AccessRefused NotAllowed InvalidPath",
            "not_found": "NotFound",
            "bad_config": "PreconditionFailed AMQPNotImplementedError InvalidCommand",
            "too_large": "ContentTooLarge",
            "not_connected": """ConnectionError ConnectionForced RecoverableConnectionError
                IrrecoverableConnectionError""",
            "rejected": "ChannelError RecoverableChannelError IrrecoverableChannelError AMQPError",
            "nacked": "MessageNacked",
            "blocked": "Blocked",
            "cancelled": "ConsumerCancelled",
            "unavailable": "NoConsumers InternalError",
            "locked": "ResourceLocked",
            "limits": "ResourceError",
            "protocol": "ChannelNotOpen FrameError FrameSyntaxError UnexpectedFrame",
        },
        "ssl": {"tls": "SSLError SSLCertVerificationError"},
    },
    # Words of the server's reply, where its code alone says too little.
    words={
        "login was refused|appropriate auth mechanism": "auth",
        # "connection limit (10) is reached", of a user or a virtual host: 530, which is also "no such virtual host".
        r" limit \(\d+\)": "limits",
        "acknowledgement on channel": "timeout",  # consumer_timeout of the server
    },
    permanent={"too_large"},
    needs_operator={"auth", "forbidden", "tls", "not_found", "bad_config"},
    text_of=_reason,
)

_TOO_LARGE = re.compile(r"message size \d+ (?:is )?larger than (?:configured )?max size (\d+)")


def largest_message_bytes(error: BaseException) -> int | None:
    """The server's `max_message_size`, where it closed the channel for a larger message. Nothing says it before."""
    found = _TOO_LARGE.search(str(error))
    return int(found[1]) if found else None
