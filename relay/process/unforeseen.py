"""The net under one message: an exception that no one foresaw becomes the failure of that message alone.

A message that a bug cannot take would otherwise end its drain, come again, and end the next one too. So every step that
works on one message (converting, decoding, encoding, sending) has this under it: the message becomes a dead letter with
the code `internal`, its neighbours go on, and the log has the traceback. What is no matter of one message passes: our
own errors (a lost connection, a fence, a configuration), and whatever is not an `Exception`.
"""

import traceback

import structlog

from relay.masking import mask
from relay.models import Failure
from relay.reasons import reason_of

INTERNAL = "internal"

_MAX_REASON_CHARACTERS = 500
_MAX_TRACEBACK_CHARACTERS = 8_000
_MAX_FRAMES = 12
"""Of each end of a chain: a recursion has a thousand, all alike."""

log = structlog.get_logger(__name__)


def unforeseen(step: str, error: Exception, index: int = 0, **message: object) -> Failure:
    """The permanent failure of the message at this index of its batch. `step` says what was done, for people."""
    log_bug(f"bug in {step}: the message becomes a dead letter", error, **message)
    return Failure(index, True, INTERNAL, f"bug in {step}: {described(error)}; the log has the traceback")


def log_bug(event: str, error: Exception, **fields: object) -> None:
    """At error, with a traceback of bounded length."""
    told = traceback.TracebackException.from_exception(error, limit=-_MAX_FRAMES, compact=True)
    log.error(event, error=described(error), traceback="".join(told.format())[:_MAX_TRACEBACK_CHARACTERS], **fields)


def described(error: Exception) -> str:
    """What it is and says, without secrets, bounded. Some errors cannot even be printed."""
    try:
        text = reason_of(error)[:_MAX_REASON_CHARACTERS]
    except Exception:  # noqa: BLE001
        text = "(its text cannot be read)"
    return mask(f"{type(error).__name__}: {text}")
