"""Pipelines: list, show, set, enable, disable, delete and validate them."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from relay.errors import ConfigError, MigrationError
from relay.masking import mask, mask_config
from relay.operations import libraries
from relay.operations.base import Connection, execute, one, rows, transaction
from relay.pipelines.config import ForwardConfig, ReverseConfig, parse
from relay.pipelines.jobs import JobsConfig, parse_jobs
from relay.pipelines.streams import StreamPipeline, parse_stream
from relay.wire.byte_order_mark import without_mark
from relay.wording import json_type

Direction = Literal["forward", "reverse", "jobs", "stream"]
State = Literal["enabled", "disabled", "invalid"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline to be shown: every secret in it is masked."""

    name: str
    direction: Direction
    outbox: str | None
    consumer_group: str | None
    inbox: str | None
    state: State
    reason: str | None
    """Why the configuration is invalid."""
    config: dict[str, Any]
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredPipeline:
    """A pipeline as the database holds it. The configuration may hold secrets: never show it unmasked."""

    name: str
    direction: Direction
    outbox: str | None
    consumer_group: str | None
    inbox: str | None
    enabled: bool
    revision: int
    invalid_reason: str | None
    config: dict[str, Any]
    updated_at: datetime

    @property
    def type(self) -> str:
        """Of its sink or source, as configured."""
        if self.direction in ("jobs", "stream"):
            return self.direction
        return str(self.config.get("sink_type" if self.direction == "forward" else "source_type"))


@dataclass(frozen=True, slots=True)
class Definition:
    """A configuration that was parsed and checked."""

    text: str
    """The JSON as it was given: PostgreSQL parses it, so no number loses a digit."""
    config: ForwardConfig | ReverseConfig
    has_plain_secret: bool
    """It holds a secret that everyone can see who may read `tide.pipeline`, instead of a reference to one."""

    @property
    def direction(self) -> Direction:
        return "reverse" if isinstance(self.config, ReverseConfig) else "forward"


@dataclass(frozen=True, slots=True)
class RoutedTable:
    """A table in the form of Debezium's outbox, which is to become the outbox of a pipeline."""

    table: str
    columns: dict[str, str]
    """role -> column, for `id`, `aggregate_type`, `aggregate_id`, `type` and `payload` under another name."""
    headers: dict[str, str]
    """header -> column."""
    existing: bool
    """Publish the rows that are in the table already."""
    existing_order: str | None
    """The column that orders them."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether one configuration can be used."""

    name: str
    valid: bool
    reason: str | None


def list_pipelines(connection: Connection) -> list[Pipeline]:
    """All pipelines, by name. Raises RelayError."""
    return [_shown(pipeline) for pipeline in stored(connection)]


def show(connection: Connection, name: str) -> Pipeline:
    """Raises ConfigError if the pipeline does not exist."""
    return _shown(stored_one(connection, name))


def define(text: str, *, library_on_workers: bool = True) -> Definition:
    """Checks a configuration in JSON. Raises ConfigError that names every wrong key, and, unless the workers are known
    to have it, a client library that is not installed here."""
    text = without_mark(text)
    values = _object(text)
    config = parse(values)
    if not library_on_workers:
        libraries.require(config)
    return Definition(text, config, mask_config(values) != values)


def set_pipeline(
    connection: Connection,
    name: str,
    box: str | None,
    definition: Definition,
    *,
    group: str | None = None,
    table: RoutedTable | None = None,
    enabled: bool | None = None,
    dry_run: bool = False,
) -> str:
    """Creates or changes a pipeline; the name of its outbox or inbox.

    A forward pipeline reads the outbox `box` as the consumer group `group` (default: the one that it has, else its own
    name), or the outbox that `table` becomes. A reverse pipeline writes the inbox `box`. `enabled` starts or stops
    it in the same transaction; without it, a new one is enabled, and another stays as it is. A dry run tries everything
    and undoes it. Raises ConfigError if the database refuses it.
    """
    if definition.direction == "reverse" and (group or table):
        raise ConfigError("a consumer group and a routed table are for forward pipelines, this one is reverse")
    with transaction(connection, undo=dry_run):
        if table:
            box = _route(connection, table, box)
        if box is None:
            raise ConfigError(f"pipeline {name} needs an outbox, an inbox, or a table that becomes its outbox")
        if definition.direction == "reverse":
            execute(connection, "pipeline_set_inbox", name=name, inbox=box, config=definition.text)
        else:
            execute(connection, "pipeline_set", name=name, outbox=box, group=group, config=definition.text)
        if enabled is not None:
            execute(connection, "pipeline_enable" if enabled else "pipeline_disable", name=name)
    return box


def enable(connection: Connection, name: str) -> None:
    """Lets a pipeline run from where it stopped. Raises ConfigError if it does not exist."""
    execute(connection, "pipeline_enable", name=name)


def disable(connection: Connection, name: str) -> None:
    """Stops a pipeline after its current batch; it keeps its offset. Raises ConfigError if it does not exist."""
    execute(connection, "pipeline_disable", name=name)


def delete(connection: Connection, name: str) -> None:
    """Removes a pipeline and its offset. Raises ConfigError if it does not exist."""
    execute(connection, "pipeline_delete", name=name)


def validate(
    connection: Connection, names: Collection[str] = (), *, library_on_workers: bool = True
) -> list[Validation]:
    """Checks the configurations of these pipelines, or of all. Raises ConfigError if one does not exist."""
    return [
        _validated(pipeline.name, pipeline.config, pipeline.direction, library_on_workers)
        for pipeline in stored(connection, names)
    ]


def validate_text(name: str, text: str, *, library_on_workers: bool = True) -> Validation:
    """Checks a configuration that is in no database."""
    try:
        return _validated(name, _object(text), "forward", library_on_workers)
    except ConfigError as error:
        return Validation(name, False, mask(str(error)))


def stored(connection: Connection, names: Collection[str] = ()) -> list[StoredPipeline]:
    """These pipelines, or all, by name. Raises ConfigError if one does not exist."""
    found = [StoredPipeline(**row) for row in rows(connection, "pipeline_list", names=list(names) or None)]
    require_all([pipeline.name for pipeline in found], names)
    return found


def stored_one(connection: Connection, name: str) -> StoredPipeline:
    """Raises ConfigError if the pipeline does not exist."""
    [found] = stored(connection, [name])
    return found


def require_known(connection: Connection, name: str | None) -> None:
    """Raises ConfigError if a pipeline was named that does not exist."""
    if name is not None:
        stored_one(connection, name)


def require_all(found: Sequence[str], wanted: Collection[str]) -> None:
    """Raises ConfigError that names the wanted pipelines that were not found."""
    if missing := sorted(set(wanted) - set(found)):
        raise ConfigError(f"pipeline {', '.join(missing)} does not exist; list them: relay pipeline list")


def _shown(pipeline: StoredPipeline) -> Pipeline:
    return Pipeline(
        pipeline.name,
        pipeline.direction,
        pipeline.outbox,
        pipeline.consumer_group,
        pipeline.inbox,
        "disabled" if not pipeline.enabled else "invalid" if pipeline.invalid_reason else "enabled",
        pipeline.invalid_reason,
        mask_config(pipeline.config),
        pipeline.updated_at,
    )


def parse_stored(direction: str, config: dict[str, Any]) -> ForwardConfig | ReverseConfig | JobsConfig | StreamPipeline:
    """Checks a configuration of the database; queues of jobs and stream tables have keys of their own.

    Raises ConfigError.
    """
    if direction == "stream":
        return parse_stream(config)
    return parse_jobs(config) if direction == "jobs" else parse(config)


def _validated(name: str, config: dict[str, Any], direction: str, library_on_workers: bool) -> Validation:
    try:
        found = parse_stored(direction, config)
        if not library_on_workers and not isinstance(found, StreamPipeline):
            libraries.require(found)
    except ConfigError as error:
        return Validation(name, False, mask(str(error)))
    return Validation(name, True, None)


def _route(connection: Connection, table: RoutedTable, outbox: str | None) -> str:
    try:
        return str(
            one(
                connection, "table_route", source=table.table, outbox=outbox, columns=Jsonb(table.columns),
                headers=Jsonb(table.headers), existing=table.existing, existing_order=table.existing_order,
            )
        )  # fmt: skip
    except MigrationError as error:
        missing = error.__cause__
        if isinstance(missing, pg.UndefinedTable | pg.InvalidSchemaName):
            raise ConfigError(f"cannot route table {table.table}: {missing.diag.message_primary}") from error
        raise


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(without_mark(text))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the configuration is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "write it in single quotes for the shell, or give @FILE"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"the configuration must be a JSON object, not {json_type(value)}")
    return value
