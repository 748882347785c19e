"""The queues between schedulers and workers, as `relay doctor` looks at them: is all on one broker, is each served.

One cause is one finding: if no worker is alive, no queue says that it has none.
"""

import time
from collections.abc import Iterator, Sequence

from relay.broker.factory import make_broker, serve
from relay.broker.queues import DRAIN_QUEUES, MAINTENANCE_QUEUE
from relay.database.connection import Connection
from relay.database.identity import read_identity
from relay.masking import mask
from relay.operations.base import counted, one, seconds_text
from relay.operations.doctor.findings import Check, Finding, failed, ok, skipped, some, warning
from relay.operations.doctor.fleet import Look, Row, look
from relay.operations.doctor.workers import OTHER_DATABASE, alive, none_alive
from relay.operations.fleet import Process, Waiting, waiting_text
from relay.settings import Settings

# Who starts is connected a moment later, and a scheduler renews its sign every five seconds.
STARTING_SECONDS = 2.0
SIGN_SECONDS = 6.0
# As the alert has it.
MAINTENANCE_SECONDS = 3600.0

ONE_BROKER = "give schedulers, workers and relay doctor the same broker: --broker-url (RELAY_BROKER_URL)"
BROKER_OF_SCHEDULERS = "broker of schedulers"


def queues(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether schedulers and workers of this database are on this broker, and take what waits there."""
    identity = read_identity(connection)
    broker = make_broker(settings.broker_url)
    try:
        serve(broker, lambda: identity)
        began_at = time.monotonic()
        while True:
            seen = look(connection, broker)
            found = list(judge(seen, mask(settings.broker_url)))
            patience = SIGN_SECONDS if seen.elsewhere else STARTING_SECONDS
            if all(finding.result == "ok" for finding in found) or time.monotonic() > began_at + patience:
                break
            time.sleep(0.2)
    finally:
        broker.close()
    others = f"; workers of other databases are on this broker: {', '.join(seen.others)}" if seen.others else ""
    yield ok("queues", f"of database {identity}{others}")
    yield from found


def judge(seen: Look, url: str) -> Iterator[Finding]:
    troubled = [row for row in seen.schedulers if row["broker_trouble"]]
    yield from _troubled(troubled)
    yield from _elsewhere(seen, url)
    is_here = not seen.schedulers or len(troubled) + len(seen.elsewhere) < len(seen.schedulers)
    if seen.no_worker:
        yield none_alive(seen)
    elif is_here:
        yield from _workers(seen, url)
    if seen.pipelines and (seen.no_worker or not is_here):
        for queue in seen.needs:
            yield skipped(f"queue {queue}", "workers" if is_here else BROKER_OF_SCHEDULERS)


def _workers(seen: Look, url: str) -> Iterator[Finding]:
    cut_off = [queue for queue in seen.needs if seen.serving(queue) and not seen.consumers(queue)]
    if cut_off:
        yield _cut_off(seen, cut_off, url)
    else:
        yield alive(seen)
    for queue in seen.needs:
        if queue not in cut_off:
            yield from _queue(seen, queue)


def _troubled(schedulers: Sequence[Row]) -> Iterator[Finding]:
    """One finding for each reason, whichever schedulers meet it."""
    for trouble in dict.fromkeys(row["broker_trouble"] for row in schedulers):
        names = [_name(row) for row in schedulers if row["broker_trouble"] == trouble]
        cannot = counted(len(names), "scheduler cannot use its broker", "schedulers cannot use their broker")
        found = f"{cannot} ({some(names)}): {mask(trouble)}"
        yield failed(BROKER_OF_SCHEDULERS, found, f"let them reach it; {ONE_BROKER}")


def _elsewhere(seen: Look, url: str) -> Iterator[Finding]:
    if not seen.elsewhere:
        if seen.schedulers and not any(row["broker_trouble"] for row in seen.schedulers):
            yield ok(BROKER_OF_SCHEDULERS, "the same as here")
        return
    names = [_name(row) for row in seen.elsewhere]
    uses = counted(len(names), "scheduler uses", "schedulers use")
    found = f"{uses} another broker than {url} ({some(names)})"
    if any(depth.consumers for depth in seen.depths.values()):
        found += ", where workers of this database wait: its drains do not reach them"
    waiting = "" if seen.no_worker else seen.waiting_text()  # else the check `workers` says it
    yield failed(BROKER_OF_SCHEDULERS, f"{found}{waiting}", ONE_BROKER)


def _cut_off(seen: Look, queues: Sequence[str], url: str) -> Finding:
    """Workers are alive that should serve these queues, and none of them is connected to this broker."""
    workers = [w for w in seen.workers if set(w.queues) & set(queues)]
    lost = [w for w in workers if set(w.lacking) & set(queues)]
    waiting = seen.waiting_text(queues)
    if len(lost) == len(workers):
        found = f"{_processes(lost)} cannot use their broker, and no other serves {', '.join(queues)}{waiting}"
        return failed("workers", found, f"their logs say why; {ONE_BROKER}")
    found = f"{_processes(workers)} serve {', '.join(queues)} on another broker than {url}, or were killed within "
    return failed("workers", f"{found}the last minute{waiting}", ONE_BROKER)


def _queue(seen: Look, queue: str) -> Iterator[Finding]:
    check, consumers = f"queue {queue}", seen.consumers(queue)
    if not consumers:
        yield from _unserved(seen, queue)
        return
    waiting = seen.waiting.get(queue, Waiting())
    served = counted(consumers, "worker process serves", "worker processes serve")
    connected = [worker for worker in seen.serving(queue) if queue not in worker.lacking]
    if waiting.is_long and queue in seen.running:
        found = f"{waiting_text(queue, waiting)}: {served} it, and other drains run"
        yield warning(check, found, "start more workers, or give them more threads: --threads (RELAY_WORKER_THREADS)")
    elif waiting.is_long:
        fix = "see their logs: they may hang, or not reach PostgreSQL; then restart them"
        yield failed(check, f"{waiting_text(queue, waiting)}, although {served} it", fix)
    elif len(connected) > consumers:
        found = f"{_processes(connected)} serve it, and {consumers} on this broker"
        yield warning(check, f"{found}: the others use another one, or were killed within the last minute", ONE_BROKER)
    else:
        yield ok(check, f"{served} it")


def _unserved(seen: Look, queue: str) -> Iterator[Finding]:
    """Of queues of jobs the check `jobs` says it, by their names."""
    if queue == DRAIN_QUEUES["jobs"] and queue not in seen.waiting and not seen.depths[queue].others:
        return
    names, others = seen.needs.get(queue, ()), seen.depths[queue].others
    needed = counted(len(names), "pipeline needs", "pipelines need")
    found = "no worker serves it"
    if queue == MAINTENANCE_QUEUE:
        found += ": nothing is removed, whatever its age"
    elif not seen.waiting_text([queue]):
        found += f", and {needed} it: {some(names)}"
    found += seen.waiting_text([queue])
    fix = f"start workers for it: relay workers --queues {queue}, or without --queues for all"
    if queue == DRAIN_QUEUES["jobs"]:
        fix = "start workers that run jobs: relay workers --jobs MODULE"
    if others:
        found += f"; workers of another database do, and leave its drains alone: {', '.join(others)}"
        fix = OTHER_DATABASE
    yield failed(f"queue {queue}", found, fix)


def _processes(workers: Sequence[Process]) -> str:
    named = some([worker.where for worker in workers])
    return f"{counted(len(workers), 'worker process', 'worker processes')} ({named})"


def _name(scheduler: Row) -> str:
    return f"{scheduler['host']}:{scheduler['pid']}"


def maintenance(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether workers complete their turns of maintenance."""
    seconds = one(connection, "maintenance_age")
    if seconds is not None and seconds > MAINTENANCE_SECONDS:
        yield warning(
            "maintenance",
            f"it was last completed {seconds_text(seconds)} ago: what is old stays",
            'see the logs of workers that serve tide.maintenance for "a step of maintenance was left out"',
        )


CHECKS: tuple[Check, ...] = (queues, maintenance)
