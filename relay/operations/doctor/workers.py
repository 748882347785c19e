"""That no worker is alive, as `relay doctor` says it: once, whatever waits for one."""

from collections.abc import Iterator

from relay.broker.queues import DRAIN_QUEUES
from relay.database.connection import Connection
from relay.operations.base import counted
from relay.operations.doctor.findings import Check, Finding, failed, ok, warning
from relay.operations.doctor.fleet import Look, look_at_database
from relay.operations.doctor.jobs import unserved_text
from relay.settings import Settings

OTHER_DATABASE = (
    "give workers the database of the schedulers, --postgres-url (RELAY_POSTGRES_URL), and stop those that were left"
)


def workers(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether any is alive: what the database alone tells. With a broker, the check of the queues says more."""
    seen = look_at_database(connection)
    yield none_alive(seen) if seen.no_worker else alive(seen)


def alive(seen: Look) -> Finding:
    return ok("workers", f"{counted(len(seen.workers), 'process is', 'processes are')} alive")


def none_alive(seen: Look) -> Finding:
    found, fix = "none is alive", "start workers: relay workers"
    if DRAIN_QUEUES["jobs"] in seen.needs:
        fix += " --jobs MODULE, where MODULE has the handlers of the jobs"
    jobs = unserved_text(seen.jobs)
    if seen.pipelines and not (jobs or seen.waiting_text()):
        found += f", and {counted(len(seen.pipelines), 'pipeline needs', 'pipelines need')} them"
    found += (f"; {jobs}" if jobs else "") + seen.waiting_text()
    if any(depth.consumers for depth in seen.depths.values()):
        found += "; yet some serve queues on this broker, and cannot say in the database that they live"
        fix = "see their logs, and grant their role its rights: select tide.grant_relay('ROLE');"
    elif seen.others:
        found += f"; workers of another database do run here, and leave its drains alone: {', '.join(seen.others)}"
        fix = OTHER_DATABASE
    # Without pipelines there is only maintenance, of a database in which nothing happens.
    return (failed if seen.pipelines else warning)("workers", found, fix)


ALONE: tuple[Check, ...] = (workers,)
"""Where there is no broker to look at."""
