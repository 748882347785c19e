"""The checks of `relay doctor` that concern the database."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from relay.database import migrate, pooler
from relay.database.connection import Connection, is_shared
from relay.masking import mask
from relay.operations.base import counted, rows, seconds_text
from relay.operations.doctor.findings import Check, Finding, failed, ok, some, warning
from relay.operations.locks import ending, holder_text, strangers
from relay.operations.pages import pages
from relay.operations.status_facts import is_alive, is_drained, publisher_text
from relay.settings import Settings

OLDEST_VERSION, NEWEST_VERSION = 14, 18
# A publishing transaction usually takes milliseconds; people notice what waits behind one of a minute.
STALL_SECONDS = 60.0


def server(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Version, encoding, connections, and whether a pooler stands in between."""
    [row] = rows(connection, "doctor_server")
    major = row["version_number"] // 10_000
    if major < OLDEST_VERSION:
        yield failed("server version", row["version"], f"upgrade PostgreSQL to {OLDEST_VERSION} or later")
    elif major > NEWEST_VERSION:
        yield warning("server version", f"{row['version']} is newer than this tide-relay knows", "upgrade tide-relay")
    else:
        yield ok("server version", row["version"])
    if row["in_recovery"]:
        yield failed("primary", "this server is a standby, which is read-only", "give the URL of the primary")
    elif row["read_only"]:
        found = "the database is read-only: default_transaction_read_only is on"
        fix = "services set it while the disk is full, or during a failover: give it room; everything then goes on"
        yield failed("primary", found, fix)
    if row["encoding"] == "UTF8":
        yield ok("encoding", "UTF8")
    else:
        fix = "recreate the database with ENCODING 'UTF8': no other encoding holds all JSON"
        yield failed("encoding", row["encoding"], fix)
    yield _headroom(row["connection_slots"], row["connections"], row["role_limit"], row["database_limit"], settings)
    yield _pooler(connection, settings)


def _pooler(connection: Connection, settings: Settings) -> Finding:
    if not pooler.is_between(connection):
        return ok("pooler", "none")
    if is_shared(connection, settings):
        return warning(
            "pooler",
            "a connection pooler in transaction mode is in between: schedulers refuse it (advisory locks, LISTEN)",
            "give schedulers and relay api the URL of PostgreSQL itself, or a pool in session mode; workers may use "
            "this one, if their role has the settings that docs/operations/pgbouncer.md lists",
        )
    return warning(
        "pooler",
        "a connection pooler is in between, apparently in session mode",
        "schedulers and workers may use it, as long as it stays in session mode",
    )


def _headroom(slots: int, used: int, role: int | None, database: int | None, settings: Settings) -> Finding:
    room = slots - used
    limits = [limit for limit in (role, database) if limit is not None]
    # Connections of other roles and databases count against these limits too: on the safe side.
    room = min([room, *(limit - 1 for limit in limits)])
    wanted = settings.worker_processes * settings.worker_threads + 1
    found = f"{used} of {slots} in use, room for {max(0, room)} more"
    if limits:
        found += f" (limits of role or database: {', '.join(map(str, limits))})"
    processes = counted(settings.worker_processes, "process", "processes")
    need = f"one scheduler and the workers of one machine ({processes} with "
    need += f"{counted(settings.worker_threads, 'thread')}) may open {wanted}"
    if room >= wanted:
        return ok("connections", found)
    fix = "raise max_connections or the limit, or run fewer worker processes and threads"
    return (failed if room < 1 else warning)("connections", f"{found}; {need}", fix)


def rights(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """The rights that tide.grant_relay gives."""
    role = connection.info.user
    if lacking := [row["lacking"] for row in rows(connection, "doctor_rights")]:
        yield failed(
            "rights",
            f"role {role} lacks {', '.join(lacking)}",
            f"as the owner of the schema: select tide.grant_relay('{role}');",
        )
    else:
        yield ok("rights", f"role {role} may run schedulers and workers")


def migrations(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether the schema is the one that this version needs."""
    state = migrate.check(connection)
    if state.unknown:
        numbers = ", ".join(f"{version:04}" for version in state.unknown)
        if state.incompatible:
            yield failed("migrations", f"the database is ahead, it has {numbers}", "upgrade tide-relay")
        else:
            found = f"the database is ahead, it has {numbers}, with which this version can work"
            yield warning("migrations", found, "upgrade tide-relay at a convenient time")
    elif state.functions == "ahead":
        found = "the database has the functions of a later version, with which this version can work"
        yield warning("migrations", found, "upgrade tide-relay at a convenient time")
    if state.lacks:
        found = f"the database lacks {', '.join(state.lacks)}"
        yield failed("migrations", found, "relay migrate, as the owner of the schema")
    if state.current:
        yield ok("migrations", f"current, {len(state.applied)} applied")


def horizon(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Publishing transactions that are left open, and forgotten prepared transactions."""
    # An open enqueue of a job holds back no other job.
    open_long = [
        row for row in rows(connection, "status_publishers")
        if row["publishes"] and not row["outbox"].startswith("jobs/")
        and (row["gid"] is not None or (row["open_seconds"] or 0) >= STALL_SECONDS)
    ]  # fmt: skip
    for row in open_long:
        if row["gid"] is not None:
            fix = f"commit prepared '{row['gid']}'; or rollback prepared '{row['gid']}';"
        else:
            state = f"it is {row['state']}: " if row["state"] else ""
            fix = f"{state}end it in the application, or: select pg_terminate_backend({row['pid']});"
        found = f"{publisher_text(row)} holds back messages of outbox {row['outbox']} that were published after it"
        yield (warning if (row["open_seconds"] or 0) < STALL_SECONDS else failed)("horizon", found, fix)
    if not open_long:
        yield ok("horizon", f"no publisher open for {seconds_text(STALL_SECONDS)} or longer, none prepared")


def locks(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Sessions that hold the locks of pipelines or publishers, and are neither: any role can take them."""
    held_by = strangers(
        connection,
        {
            row["name"]: row["config"].get("relay_group_id") or ""
            for row in rows(connection, "pipeline_list", names=None)
        },
    )
    others = [row for row in rows(connection, "status_publishers") if not row["publishes"]]
    for pipeline, row in held_by.items():
        found = (
            f"{holder_text(row)}, holds the lock of pipeline {pipeline} and is no scheduler: no scheduler can own it"
        )
        yield failed("locks", found, f"end it: {ending(row)}")
    for row in others:
        found = f"{holder_text(row)}, holds locks like those of a publisher of outbox {row['outbox']}"
        found += ", and is not publishing; it holds back nothing"
        yield warning("locks", found, f"end it: {ending(row)}")
    if not held_by and not others:
        yield ok("locks", "no session holds those of pipelines or publishers but schedulers and publishers")


def schedulers(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether schedulers are alive, which own the pipelines."""
    found = rows(connection, "status_schedulers")
    alive = [row for row in found if is_alive(row)]
    for row in alive:
        about = f"{row['host']}:{row['pid']}, group {row['relay_group_id']}, {counted(row['pipelines'], 'pipeline')}"
        yield ok("scheduler", f"{about}, version {row['version']}")
    for row in found:
        if row["connected"] and not is_alive(row):
            yield warning(
                "scheduler",
                f"{row['host']}:{row['pid']} has been silent for {seconds_text(row['silent_seconds'])}",
                "check its log; another scheduler ends its session and takes over",
            )
    pipelines = [row for row in rows(connection, "status_pipelines", names=None, count_limit=1) if is_drained(row)]
    if not alive:
        result = failed if pipelines else warning
        needed = counted(len(pipelines), "pipeline needs", "pipelines need")
        yield result("scheduler", f"none is alive, {needed} one", "start relay-scheduler")
        return
    yield from _groups({row["relay_group_id"] for row in alive}, pipelines)


def _groups(alive: set[str], pipelines: list[dict[str, Any]]) -> Iterator[Finding]:
    """Groups that pipelines name, and of which no scheduler is alive. Any scheduler owns a pipeline that names none."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for row in pipelines:
        if row["relay_group_id"] and row["relay_group_id"] not in alive:
            lacking[row["relay_group_id"]].append(row["name"])
    for group, names in sorted(lacking.items()):
        named = counted(len(names), "pipeline names", "pipelines name")
        found = f"none of group {group} is alive, and {named} it: {some(names)}"
        yield failed("scheduler", found, f"start relay-scheduler --relay-group-id {group}")


def partitions(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whether each outbox has a partition ahead."""
    behind = [row["name"] for row in pages(connection, "doctor_partitions")]
    for name in behind:
        yield warning(
            "partitions",
            f"outbox {name} has no unused partition ahead",
            f"a running scheduler creates one within seconds; manually: select tide.outbox_extend('{mask(name)}');",
        )
    if not behind:
        yield ok("partitions", "every outbox has one ahead")


def ids(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Outboxes whose new ids are below what is stored: their messages are passed over."""
    behind = list(pages(connection, "doctor_ids"))
    for row in behind:
        what = f"{row['highest_id']} is stored"
        if row["consumer_group"]:
            what = f"consumer group {row['consumer_group']} has its offset at {row['offset_id']}"
        yield failed(
            "ids",
            f"the last id of outbox {row['outbox']} is {row['last_id']}, and {what}: new messages get ids that were "
            "given before, and are not delivered",
            "the database was copied without its sequences, or restored: relay restored",
        )
    if not behind:
        yield ok("ids", "every outbox gives ids above all that is stored")


def retention(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Messages that retention removed unsettled within the last day, or is about to."""
    ending = sorted(pages(connection, "doctor_holds"), key=lambda row: row["seconds_left"])
    lost = rows(connection, "retention_losses")
    for row in lost:
        yield warning(
            "retention",
            f"{counted(row['messages'], 'message was', 'messages were')} removed from outbox {row['outbox']}, "
            f"{row['first_id']} to {row['last_id']}, although consumer group {row['consumer_group']} had not settled "
            f"{'it' if row['messages'] == 1 else 'them'} ({row['reason']})",
            "see tide.retention_loss; raise max_retention_hours, or drop groups and pipelines that are not needed",
        )
    for row in ending:
        soon = seconds_text(max(0.0, row["seconds_left"]))
        yield warning(
            "retention",
            f"outbox {row['outbox']} has {counted(row['messages'], 'message')} waiting for consumer group "
            f"{row['consumer_group']} ({row['state']}); the oldest may be removed in {soon}",
            _release(row["state"], row["pipeline"]),
        )
    if not lost and not ending:
        yield ok("retention", "nothing was removed unsettled within a day, and nothing is about to be")


def _release(state: str, pipeline: str | None) -> str:
    if state == "active":
        return "keep them until they are settled: select tide.setting_set('outbox_force_retention', 'true');"
    if pipeline is None:
        return "poll the group, or drop it if it is not needed"
    fix = f"relay pipeline enable {pipeline}" if state == "disabled" else f"fix the configuration of {pipeline}"
    return f"{fix}; or relay pipeline delete {pipeline} if it is not needed"


CHECKS: tuple[Check, ...] = (horizon, locks, schedulers, partitions, ids, retention)
"""Those of tables. `server`, `rights` and `migrations` come before."""
