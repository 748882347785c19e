"""The names of queues and actors, and how to enqueue by name: the scheduler never imports the code that drains."""

import re
from collections.abc import Iterable
from typing import Any

import dramatiq

from relay.errors import ConfigError
from relay.models import Drain

DRAIN_QUEUES = {"forward": "tide.forward", "reverse": "tide.reverse"}
"""One for each direction, so that each direction can have its own workers."""
DRAIN_ACTOR = "drain"
MAINTENANCE_QUEUE = "tide.maintenance"
MAINTENANCE_ACTOR = "maintain"

# As the tables have them, and `visibility_timeout_ms` of a pipeline.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LARGEST_NUMBER = 2**63 - 1
_LONGEST_LEASE_MS = 3_600_000


def enqueue_drain(broker: dramatiq.Broker, drain: Drain, direction: str) -> None:
    """Puts a drain on the queue of its direction. A worker drops a drain that has waited for longer than its lease.

    Raises NotConnected when the broker cannot be reached; the drain may or may not have been queued then.
    """
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=DRAIN_QUEUES[direction],
        actor_name=DRAIN_ACTOR,
        args=(drain.pipeline, drain.epoch, drain.number, drain.lease_ms),
        kwargs={},
        options={"max_retries": 0, "max_age": drain.lease_ms},
    )
    broker.enqueue(message)


def enqueue_maintenance(broker: dramatiq.Broker, max_age_seconds: float) -> None:
    """Asks one worker for one turn of maintenance. It is dropped when it is older: by then another was asked for.

    Raises NotConnected when the broker cannot be reached.
    """
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=MAINTENANCE_QUEUE,
        actor_name=MAINTENANCE_ACTOR,
        args=(),
        kwargs={},
        options={"max_retries": 0, "max_age": round(max_age_seconds * 1000)},
    )
    broker.enqueue(message)


def carries_drains(queue_name: str) -> bool:
    return queue_name in DRAIN_QUEUES.values()


def check_queues(queue_names: Iterable[str]) -> None:
    """Raises ConfigError, listing the known queues, for a queue that does not exist."""
    known = [*DRAIN_QUEUES.values(), MAINTENANCE_QUEUE]
    if unknown := sorted(set(queue_names) - set(known)):
        raise ConfigError(f"there is no queue {', '.join(unknown)}; known: {', '.join(known)}")


def may_all_wait(queue_names: Iterable[str]) -> bool:
    """Whether every thread of a process that serves these queues may wait on sources: nothing else needs one soon."""
    return set(queue_names) == {DRAIN_QUEUES["reverse"]}


def drain_from(args: object) -> Drain | None:
    """The drain that the arguments of a queue message stand for. None if they are not a drain's.

    Anyone who can write to the broker can have put them there. Epoch and number are judged by the database.
    """
    match args:
        case [str(pipeline), int(epoch), int(number), int(lease_ms)] if (
            _NAME.fullmatch(pipeline)
            and not any(isinstance(value, bool) for value in (epoch, number, lease_ms))
            and 0 <= epoch <= _LARGEST_NUMBER
            and 0 <= number <= _LARGEST_NUMBER
            and 1 <= lease_ms <= _LONGEST_LEASE_MS
        ):
            return Drain(pipeline, epoch, number, lease_ms)
    return None
