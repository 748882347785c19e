"""The checks of `relay doctor` that concern processes: is `relay api` there where it is needed, do versions differ."""

from collections import defaultdict
from collections.abc import Iterator

import relay
from relay.database.connection import Connection
from relay.operations import fleet, job_queues
from relay.operations.base import counted, rows
from relay.operations.doctor.findings import Check, Finding, failed, ok, some, warning
from relay.operations.status_facts import is_alive
from relay.process.presence import SILENT_SECONDS
from relay.settings import Settings

RECEIVED_BY_API = "webhook"


def api(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether `relay api` is alive, where pipelines receive webhooks."""
    hooks = [
        row["name"]
        for row in rows(connection, "status_pipelines", names=None, count_limit=1)
        if row["source_type"] == RECEIVED_BY_API and row["enabled"] and not row["invalid_reason"]
    ]
    alive = [process for process in fleet.processes(connection) if process.kind == "api"]
    if not hooks:
        return
    receive = counted(len(hooks), "pipeline receives", "pipelines receive")
    if alive:
        yield ok("relay api", f"{some([process.where for process in alive])}; {receive} webhooks")
    else:
        found = f"none is alive, and {receive} webhooks: {some(hooks)}"
        yield failed("relay api", found, "start relay api, with this database")


def versions(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether all processes have one version, and this command too."""
    found: dict[str, set[str]] = defaultdict(set)
    found[relay.__version__].add("this command")
    for row in rows(connection, "status_schedulers"):
        if is_alive(row):
            found[row["version"]].add("schedulers")
    for process in fleet.processes(connection):
        found[process.version].add("relay api" if process.kind == "api" else "workers")
    for worker in job_queues.workers(connection):
        if worker.version and worker.silent_seconds < SILENT_SECONDS:
            found[worker.version].add("workers")
    if len(found) == 1:
        yield ok("versions", f"all {relay.__version__}")
        return
    texts = [f"{version} ({', '.join(sorted(who))})" for version, who in sorted(found.items())]
    fix = "finish the upgrade: replace what runs an older version; a difference of minutes is harmless"
    yield warning("versions", f"they differ: {'; '.join(texts)}", fix)


CHECKS: tuple[Check, ...] = (api, versions)
