"""Makes the Dramatiq broker from a URL, with an explicit list of middleware.

What is left out matters as much as what is in: no Retries (the scheduler alone decides when a pipeline is drained
again), no TimeLimit (a drain bounds itself by its slice; an exception thrown into its thread could fall between a
publish and its settle), no Prometheus (ours is in `relay.process.worker_metrics`).
"""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, cast

import dramatiq
from dramatiq.middleware import AgeLimit, Middleware

from relay.broker.queues import ACTORS, Depth
from relay.errors import ConfigError
from relay.masking import mask

# scheme -> "module:function"; the client library of a broker is imported only when it is used.
BROKERS = {
    "redis": "relay.broker.redis:make",
    "rediss": "relay.broker.redis:make",
    "unix": "relay.broker.redis:make",
    "amqp": "relay.broker.rabbitmq:make",
    "amqps": "relay.broker.rabbitmq:make",
}


class PrefetchThreads(Middleware):
    """A worker process takes no more drains than it has threads.

    Dramatiq takes twice as many, so that drains wait behind the busy threads of one process while another idles.
    """

    def before_worker_boot(self, _broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        worker.queue_prefetch = worker.worker_threads


def make_broker(url: str, *, middleware: Sequence[Middleware] = ()) -> dramatiq.Broker:
    """A broker that connects when it is first used. Its `enqueue` raises NotConnected, within about 5 seconds.

    `middleware` is added to that of every broker. The dramatiq command uses the global broker: the entry point of the
    workers passes the result to `dramatiq.set_broker`. Actors are bound explicitly, `dramatiq.actor(broker=...)`.
    Raises ConfigError for an invalid URL or an unknown scheme, MissingExtra if the client library is missing.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in BROKERS:
        known = ", ".join(f"{name}://" for name in BROKERS)
        raise ConfigError(f"unknown broker URL {mask(url)!r}; known schemes: {known}")
    broker: dramatiq.Broker = pkgutil.resolve_name(BROKERS[scheme])(url, [AgeLimit(), PrefetchThreads(), *middleware])
    return broker


def serve(
    broker: dramatiq.Broker,
    identity: Callable[[], str],
    refused: Callable[[str], None] | None = None,
    has_room: Callable[[str], bool] | None = None,
) -> None:
    """Has the broker use the queues of the database whose identity this returns; it may change. Before any is used.

    `refused` counts, by code, each message that is not believed. `has_room` says whether others should rather take the
    next message of a queue; RabbitMQ does not ask.
    """
    cast(Any, broker).identity = identity
    if has_room is not None:
        cast(Any, broker).has_room = has_room
    if refused is not None:
        cast(Any, broker).refusals.count = refused


def depths(broker: dramatiq.Broker) -> list[Depth]:
    """How the queues of the database are. Raises NotConnected, within about 5 seconds."""
    return cast(list[Depth], cast(Any, broker).depths([*ACTORS]))


def ping(broker: dramatiq.Broker) -> None:
    """Raises NotConnected unless the broker answers, within about 5 seconds."""
    cast(Any, broker).ping()


def leave_sign(broker: dramatiq.Broker, scheduler_id: str) -> None:
    """Lets others see that this scheduler uses the broker; for half a minute at most. Raises NotConnected."""
    cast(Any, broker).leave_sign(scheduler_id)


def has_sign(broker: dramatiq.Broker, scheduler_id: str) -> bool:
    """Whether that scheduler uses the broker: the addresses of one broker may differ. Raises NotConnected."""
    return bool(cast(Any, broker).has_sign(scheduler_id))
