"""Takes over the jobs of PgRelay: its queues, what waits, and what is dead, in one transaction.

What waits is cancelled there, so that a worker of PgRelay that still runs does not run it too. What is leased there may
be running: it stays, and is said to be left.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from relay.errors import ConfigError
from relay.jobs.templates import json_object
from relay.operations.base import Connection, counted, execute, one, rows, transaction
from relay.operations.foreign_tables import lock_if_there
from relay.wire.json_text import members

TABLES = ("pgrelay_queue", "pgrelay_job", "pgrelay_attempt", "pgrelay_worker")
_KINDS = {"http": "http", "handler": "python"}
# JSON as text, so that no number loses a digit.
_TEXTS = "payload::text as payload, headers::text as headers, metadata::text as metadata"
_WAITING = "select *, {texts} from {jobs} where status = 'pending' order by created_at, id for update"
_DEAD = "select *, {texts} from {jobs} where status = 'dead_letter' order by created_at, id"
_LEASED = "select count(*) from {jobs} where status = 'leased'"
_CANCEL = "update {jobs} set status = 'cancelled', updated_at = now(), completed_at = now() where id = any (%s)"


@dataclass(frozen=True, slots=True)
class Imported:
    """One line for each thing."""

    done: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    """What people have to do."""


def import_pgrelay(connection: Connection, *, schema: str = "public", dry_run: bool = False) -> Imported:
    """A dry run changes nothing. Raises ConfigError if the tables are not there, or for a missing right."""
    imported = Imported()
    with transaction(connection, undo=dry_run):
        # A policy may hide the rows of others: an error is better than a partial import.
        connection.execute("set local row_security = off")
        for table in TABLES:
            if not lock_if_there(connection, sql.Identifier(schema, table)):
                raise ConfigError(f"there is no table {table} in the schema {schema!r}: name it with --schema")
        _queues(connection, schema, imported)
        _jobs(connection, schema, imported)
    return imported


def _queues(connection: Connection, schema: str, imported: Imported) -> None:
    for queue in _rows(connection, schema, "select * from {queues} order by name"):
        name = queue["name"]
        if not one(connection, "job_queue_make", queue=name):
            imported.done.append(f"queue {name} exists already: not changed")
            continue
        settings = json.dumps({"concurrency_limit": queue["concurrency_limit"]})
        execute(connection, "job_queue_set", queue=name, settings=settings)
        if queue["paused"]:
            execute(connection, "job_queue_pause", queue=name)
        imported.done.append(f"queue {name} created{', paused' if queue['paused'] else ''}")


def _jobs(connection: Connection, schema: str, imported: Imported) -> None:
    waiting = _rows(connection, schema, _WAITING)
    known = 0
    for job in waiting:
        [made] = rows(connection, "job_import_waiting", **_job(job))
        known += not made["created"]
        if made["created"] and job["attempt_count"]:
            execute(connection, "job_import_attempts", job=made["job_id"], attempts=job["attempt_count"])
    connection.execute(_statement(schema, _CANCEL), [[job["id"] for job in waiting]])
    dead = _rows(connection, schema, _DEAD)
    copied = 0
    for job in dead:
        copied += len(
            rows(
                connection,
                "job_import_dead",
                source=str(job["id"]),
                **_job(job),
                created_at=job["created_at"],
                died_at=job["completed_at"] or job["updated_at"],
                attempts=job["attempt_count"],
                code=job["last_error_type"],
                error=job["last_error_message"],
            )
        )
    imported.done.append(f"{counted(len(waiting) - known, 'waiting job')} copied, and cancelled in PgRelay")
    if known:
        imported.done.append(f"{counted(known, 'waiting job')} left out: a job here has the idempotency key")
    imported.done.append(f"{counted(copied, 'dead letter')} copied")
    [[leased]] = connection.execute(_statement(schema, _LEASED)).fetchall()
    if leased:
        imported.by_hand.append(
            f"{counted(leased, 'job is', 'jobs are')} leased by workers of PgRelay: stop those, wait until the leases "
            "have run out, and import again"
        )


def _job(job: dict[str, Any]) -> dict[str, Any]:
    payload, headers, metadata = (members(job[name] or "{}") for name in ("payload", "headers", "metadata"))
    if job["kind"] == "http":
        theirs = payload.pop("headers", "null")
        headers |= {} if theirs == "null" else members(theirs)
        if "body_base64" in payload:
            payload["base64"] = payload.pop("body_base64")
    return {
        "queue": job["queue_name"],
        "kind": _KINDS[job["kind"]],
        "name": job["name"],
        "payload": json_object(payload),
        "headers": json_object(headers) if headers else None,
        "metadata": json_object(metadata | {"pgrelay_job_id": json.dumps(str(job["id"]))}),
        "priority": job["priority"],
        "max_attempts": job["max_attempts"],
        "timeout_seconds": job["timeout_seconds"],
        "available_at": job["available_at"],
        "idempotency_key": job["idempotency_key"],
        "dedupe_key": job["dedupe_key"],
        "trace_id": job["trace_id"],
    }


def _rows(connection: Connection, schema: str, statement: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_statement(schema, statement)).fetchall()


def _statement(schema: str, text: Any) -> sql.Composed:
    return sql.SQL(text).format(
        texts=sql.SQL(_TEXTS),
        queues=sql.Identifier(schema, "pgrelay_queue"),
        jobs=sql.Identifier(schema, "pgrelay_job"),
    )
