"""The names of queues and actors, and how to enqueue by name: the scheduler never imports the code that drains."""

from collections.abc import Iterable, Sequence
from typing import Any

import dramatiq

from relay.errors import ConfigError
from relay.models import Drain

DRAIN_QUEUES = {"forward": "tide.forward", "reverse": "tide.reverse"}
"""Of each direction, so that each can have workers of its own."""
DRAIN_ACTOR = "drain"
MAINTENANCE_QUEUE = "tide.maintenance"
MAINTENANCE_ACTOR = "maintain"


def enqueue_drain(broker: dramatiq.Broker, drain: Drain, direction: str) -> None:
    """Puts a drain on the queue of its direction. A worker drops it when it is older than its lease: given up.

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
    """Asks one worker to look after the database once. Dropped when it is older: another one has been asked by then.

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
    """Raises ConfigError for a queue that does not exist."""
    known = [*DRAIN_QUEUES.values(), MAINTENANCE_QUEUE]
    if unknown := sorted(set(queue_names) - set(known)):
        raise ConfigError(f"there is no queue {', '.join(unknown)}; known: {', '.join(known)}")


def may_all_wait(queue_names: Iterable[str]) -> bool:
    """Whether every thread of a process that serves these queues may wait on sources: nothing else needs one soon."""
    return set(queue_names) == {DRAIN_QUEUES["reverse"]}


def drain_from(args: Sequence[Any]) -> Drain:
    """The drain that the arguments of a queue message stand for. Raises ValueError if they are not a drain's."""
    pipeline, epoch, number, lease_ms = args
    return Drain(str(pipeline), int(epoch), int(number), int(lease_ms))
