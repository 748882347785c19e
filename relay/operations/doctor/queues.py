"""The queues between scheduler and workers, as `relay doctor` looks at them."""

import time
from collections.abc import Iterator

from relay.broker.factory import depths, make_broker, serve
from relay.broker.queues import Depth
from relay.database.connection import Connection
from relay.database.identity import read_identity
from relay.errors import RelayError
from relay.operations.base import counted
from relay.operations.doctor.findings import Check, Finding, failed, ok
from relay.settings import Settings

# Workers that are starting have queued messages before them, and connections a moment later.
STARTING_SECONDS = 2.0
OTHER_DATABASE = (
    "give workers the database of the schedulers, --postgres-url (RELAY_POSTGRES_URL), and stop those that were left"
)


def queues(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether workers of this database take what waits. What it cannot see, other checks say."""
    try:
        identity = read_identity(connection)
        broker = make_broker(settings.broker_url)
        try:
            serve(broker, lambda: identity)
            found = depths(broker)
            looks_end_at = time.monotonic() + STARTING_SECONDS
            while any(map(_is_unserved, found)) and time.monotonic() < looks_end_at:
                time.sleep(0.2)
                found = depths(broker)
        finally:
            broker.close()
    except RelayError:
        return
    waiting = [depth for depth in found if _is_unserved(depth)]
    yield from map(_unserved, waiting)
    if not waiting:
        others = sorted({other for depth in found for other in depth.others})
        shared = f"; workers of other databases are on this broker: {', '.join(others)}" if others else ""
        yield ok("queues", f"database {identity}: nothing waits without a worker{shared}")


def _is_unserved(depth: Depth) -> bool:
    return depth.messages > 0 and depth.consumers == 0


def _unserved(depth: Depth) -> Finding:
    waiting = counted(depth.messages, "message waits", "messages wait")
    found = f"{waiting} in {depth.queue}, and no worker of this database serves it"
    if depth.others:
        found += f"; workers of another database do, and leave them alone: {', '.join(depth.others)}"
        return failed("queues", found, OTHER_DATABASE)
    return failed("queues", found, "start workers for it: relay workers")


CHECKS: tuple[Check, ...] = (queues,)
