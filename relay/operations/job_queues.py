"""Queues of jobs: create, change, pause and drop them; their numbers, and the workers that serve them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.errors import ConfigError
from relay.operations import libraries
from relay.operations.base import Connection, execute, rows, transaction
from relay.operations.job_errors import NoSuchJob, refusals
from relay.pipelines.jobs import parse_jobs


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its settings. Limits are over the whole fleet; None: no limit."""

    queue: str
    paused: bool
    concurrency_limit: int | None
    key_limit: int | None
    """How many jobs of one run key run at a time."""
    rate: float | None
    """Jobs that begin in a second."""
    burst: float | None
    fair: bool
    """Whether lower priorities get an eighth of each claim."""
    keep_succeeded: bool
    retention_hours: int
    dead_retention_hours: int
    max_payload_bytes: int
    created_at: datetime
    invalid_reason: str | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a queue holds. Large numbers are estimates."""

    queue: str
    paused: bool
    pending: int
    """due and scheduled."""
    due: int
    scheduled: int
    leased: int
    dead: int
    oldest_due_seconds: float
    """For how long its oldest due job has been due; 0 if none is."""
    workers: int
    """That serve it, and gave a sign of life within a minute."""
    concurrency_limit: int | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that runs jobs."""

    worker_id: int
    host: str
    pid: int
    queues: Sequence[str]
    slots: int
    version: str
    started_at: datetime
    seen_at: datetime
    """Its last sign of life."""
    silent_seconds: float
    stopping: bool
    leased: int
    """Jobs that it has."""


def list_queues(connection: Connection) -> list[Queue]:
    """By name."""
    return [Queue(**row) for row in rows(connection, "job_queue_list", queue=None)]


def show(connection: Connection, queue: str) -> Queue:
    """Raises NoSuchJob."""
    for row in rows(connection, "job_queue_list", queue=queue):
        return Queue(**row)
    raise NoSuchJob(f"job queue {queue} does not exist; create it: relay jobs queue create {queue}")


def check_config(queue: str, config: Any, *, library_on_workers: bool = True) -> None:
    """Raises ConfigError that names every wrong key of `config`, as `pipelines.define` does."""
    try:
        if not isinstance(config, dict):
            raise ConfigError('must be a JSON object, such as {"dramatiq_url": "redis://localhost:6379/0"}')
        parsed = parse_jobs(config)
        if not library_on_workers:
            libraries.require(parsed)
    except ConfigError as error:
        raise ConfigError(f"config of job queue {queue}: {error}") from error


def create(connection: Connection, queue: str, settings: Mapping[str, Any] | None = None) -> None:
    """Creates a queue, with settings as `change` takes them. Raises NotPossible if it exists, ConfigError."""
    if settings and "config" in settings:
        check_config(queue, settings["config"])
    with refusals(), transaction(connection):
        execute(connection, "job_queue_create", queue=queue)
        if settings:
            execute(connection, "job_queue_set", queue=queue, settings=json.dumps(settings))


def change(connection: Connection, queue: str, settings: Mapping[str, Any]) -> None:
    """Changes settings: fields of `Queue`, or `config`. What is not given stays. Raises NoSuchJob, ConfigError."""
    if "config" in settings:
        check_config(queue, settings["config"])
    with refusals():
        execute(connection, "job_queue_set", queue=queue, settings=json.dumps(settings))


def pause(connection: Connection, queue: str) -> None:
    """No job of it begins any more. Those that run go on, and jobs can be enqueued. Raises NoSuchJob."""
    with refusals():
        execute(connection, "job_queue_pause", queue=queue)


def resume(connection: Connection, queue: str) -> None:
    """Raises NoSuchJob."""
    with refusals():
        execute(connection, "job_queue_resume", queue=queue)


def drop(connection: Connection, queue: str, *, force: bool = False) -> None:
    """Removes it with its jobs. Raises NoSuchJob; NotPossible if jobs wait or run and `force` is not given."""
    with refusals():
        execute(connection, "job_queue_drop", queue=queue, force=force)


def stats(connection: Connection, queue: str | None = None) -> list[Numbers]:
    """Of each queue, or of one. Raises NoSuchJob."""
    with refusals():
        return [Numbers(**row) for row in rows(connection, "job_stats", queue=queue)]


def workers(connection: Connection) -> list[Worker]:
    """The processes that run jobs, by host."""
    return [Worker(**row) for row in rows(connection, "job_workers")]
