"""The names of queues and actors, and how to enqueue by name: the scheduler never imports the code that drains."""

from collections.abc import Sequence
from typing import Any

import dramatiq

from relay.models import Drain

DRAIN_QUEUE = "tide.drain"
DRAIN_ACTOR = "drain"
MAINTENANCE_QUEUE = "tide.maintenance"
MAINTENANCE_ACTOR = "maintain"


def enqueue_drain(broker: dramatiq.Broker, drain: Drain) -> None:
    """Puts a drain on the queue. A worker that finds it older than its lease drops it: it was given up by then.

    Raises NotConnected when the broker cannot be reached; the drain may or may not have been queued then.
    """
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=DRAIN_QUEUE,
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


def drain_from(args: Sequence[Any]) -> Drain:
    """The drain that the arguments of a queue message stand for. Raises ValueError if they are not a drain's."""
    pipeline, epoch, number, lease_ms = args
    return Drain(str(pipeline), int(epoch), int(number), int(lease_ms))
