"""What is believed of a message from a queue, which anyone who can write to the broker can forge.

Our own messages have no options but an age limit: no eta, no callbacks, no retries. So every message is built again of
actor, arguments and age, once they are checked, and Dramatiq acts on nothing else. What is not ours is refused: it is
removed, counted and logged.
"""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import dramatiq
import structlog

from relay.broker.queues import ACTORS, DRAIN_ACTOR, drain_from
from relay.log_limit import LogLimit

log = structlog.get_logger(__name__)

# Ours have less than 500.
LARGEST_BYTES = 8192
LARGEST_INTEGER = 2**63 - 1
OLDEST_MS = 86_400_000


class Refused(Exception):
    """A message that the scheduler did not send: `code` is one of a few words, the text says more."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def decode(body: bytes, queue_name: str) -> dramatiq.Message[Any]:
    """The message of a queue, with nothing in it that was not checked. Raises Refused."""
    if len(body) > LARGEST_BYTES:
        raise too_large(len(body))
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        raise Refused("undecodable", f"it is not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise Refused("undecodable", "it is not an object")
    actor = ACTORS[queue_name]
    if fields.get("actor_name") != actor:
        raise Refused("actor", "its actor is not that of the queue")
    options, args = fields.get("options"), fields.get("args")
    if not isinstance(options, dict) or not isinstance(args, list) or fields.get("kwargs") != {}:
        raise Refused("arguments", "it has not the parts of a message")
    if "eta" in options:
        raise Refused("delayed", "it is to be delayed, and no message of the relay is")
    max_age = _whole(options.get("max_age"), OLDEST_MS, "max_age")
    sent_at = _whole(fields.get("message_timestamp"), LARGEST_INTEGER, "message_timestamp")
    return dramatiq.Message(
        queue_name=queue_name,
        actor_name=actor,
        args=_arguments(actor, args),
        kwargs={},
        options={"max_age": max_age},
        message_id=_id(fields.get("message_id")),
        message_timestamp=sent_at,
    )


def too_large(size: int) -> Refused:
    return Refused("too_large", f"it has {size} bytes, and none of the relay has more than {LARGEST_BYTES}")


class Refusals:
    """Counts what was refused. A flood is logged as one line a minute."""

    def __init__(self, count: Callable[[str], None] = lambda _: None) -> None:
        self.count = count
        self._due = LogLimit()

    def add(self, queue_name: str, refused: Refused) -> None:
        self.count(refused.code)
        if times := self._due.count():
            log.error(
                "refused messages that the relay did not send: another client writes to its queues",
                queue=queue_name,
                code=refused.code,
                reason=f"the last one: {refused}",
                messages=times,
            )


def _arguments(actor: str, args: list[Any]) -> tuple[Any, ...]:
    if actor != DRAIN_ACTOR:
        if args:
            raise Refused("arguments", "maintenance has no arguments")
        return ()
    try:
        drain_from(args)
    except ValueError as error:
        raise Refused("arguments", str(error)) from None
    return tuple(args)


def _whole(value: object, largest: int, what: str) -> int:
    if type(value) is not int or not 0 < value <= largest:
        raise Refused("arguments", f"its {what} is not a whole number from 1 to {largest}")
    return value


def _id(value: object) -> str:
    # It is in Dramatiq's log lines, so that its form matters.
    try:
        return str(UUID(value if isinstance(value, str) and len(value) <= 36 else ""))
    except ValueError:
        raise Refused("arguments", "its message_id is not a UUID") from None
