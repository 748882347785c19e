"""The names of queues and actors, and how to enqueue by name: the scheduler never imports the code that drains."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dramatiq

from relay.errors import ConfigError
from relay.models import Drain

DRAIN_QUEUES = {"forward": "tide.forward", "reverse": "tide.reverse", "jobs": "tide.jobs", "stream": "tide.streams"}
"""One for each direction, so that each direction can have its own workers."""
DRAIN_ACTOR = "drain"
MAINTENANCE_QUEUE = "tide.maintenance"
MAINTENANCE_ACTOR = "maintain"
ACTORS = {**dict.fromkeys(DRAIN_QUEUES.values(), DRAIN_ACTOR), MAINTENANCE_QUEUE: MAINTENANCE_ACTOR}
"""The only actor whose messages a queue carries."""

# As the tables have them, and `visibility_timeout_ms` of a pipeline.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LARGEST_NUMBER = 2**63 - 1
_LONGEST_LEASE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Depth:
    """How a queue is."""

    queue: str
    messages: int
    """That wait."""
    consumers: int | None
    """Worker processes that serve it; None if the broker does not say."""
    others: tuple[str, ...] = ()
    """Identities of other databases for which workers serve the queue of that name, as far as the broker says."""


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


def check_queues(queue_names: Iterable[str], *, jobs: bool = True) -> None:
    """Raises ConfigError, listing the known queues, for a queue that does not exist, or jobs that cannot be run."""
    known = [*DRAIN_QUEUES.values(), MAINTENANCE_QUEUE]
    if unknown := sorted(set(queue_names) - set(known)):
        raise ConfigError(f"there is no queue {', '.join(unknown)}; known: {', '.join(known)}")
    if not jobs and DRAIN_QUEUES["jobs"] in queue_names:
        raise ConfigError(
            f"{DRAIN_QUEUES['jobs']} needs to be told what to run: give --jobs MODULE or --job-queues NAMES"
        )


def may_all_wait(queue_names: Iterable[str]) -> bool:
    """Whether every thread of a process that serves these queues may wait on sources: nothing else needs one soon."""
    return set(queue_names) == {DRAIN_QUEUES["reverse"]}


def drain_from(args: Sequence[Any]) -> Drain:
    """The drain that the arguments of a queue message stand for. Raises ValueError if they are not a drain's."""
    if len(args) != 4:
        raise ValueError(f"a drain has 4 arguments, not {len(args)}")
    pipeline, *numbers = args
    if type(pipeline) is not str or not _NAME.fullmatch(pipeline):
        raise ValueError("the first argument of a drain is the name of a pipeline")
    bounds = {"epoch": (0, _LARGEST_NUMBER), "number": (0, _LARGEST_NUMBER), "lease_ms": (1, _LONGEST_LEASE_MS)}
    for (name, (least, largest)), value in zip(bounds.items(), numbers, strict=True):
        if type(value) is not int or not least <= value <= largest:
            raise ValueError(f"the {name} of a drain is a whole number from {least} to {largest}")
    return Drain(pipeline, *numbers)
