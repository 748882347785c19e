"""Creates what pg_tide has: outboxes, inboxes, consumer groups and pipelines, with their ids and offsets."""

import json
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from relay.masking import mask_config
from relay.operations.base import Connection, counted, transaction
from relay.operations.pg_tide import catalog as catalogs
from relay.operations.pg_tide.catalog import Catalog, Row
from relay.operations.pg_tide.translate import Translated, forward, reverse


@dataclass(frozen=True, slots=True)
class Imported:
    """One line for each thing."""

    done: list[str]
    by_hand: list[str]
    """What people have to do."""


def import_pg_tide(
    connection: Connection, *, schema: str | None = None, messages: bool = False, enable: bool = False,
    dry_run: bool = False,
) -> Imported:  # fmt: skip
    """Imports everything in one transaction, and leaves what exists here already.

    `schema` is where pg_tide is (default: found by its tables). With `messages`, what is still to be delivered and what
    is in inboxes is copied; with `enable`, pipelines that are enabled there are enabled here. A dry run changes
    nothing. Raises ConfigError if there is no pg_tide, or for a missing right.
    """
    with transaction(connection, undo=dry_run):
        work = _Import(connection, catalogs.read(connection, schema), messages=messages, enable=enable)
        work.run()
    return Imported(work.done, work.by_hand)


class _Import:
    """One run."""

    def __init__(self, connection: Connection, catalog: Catalog, *, messages: bool, enable: bool) -> None:
        self.connection, self.catalog = connection, catalog
        self.messages, self.enable = messages, enable
        self.done: list[str] = []
        self.by_hand: list[str] = []

    def run(self) -> None:
        if self.messages:
            catalogs.keep_out_writers(self.connection, self.catalog)
        pipelines = [(row, forward(row["config"])) for row in self.catalog.forward]
        new = {row["outbox_name"]: self._outbox(row, pipelines) for row in self.catalog.outboxes}
        taken = {made.group for _, made in pipelines}
        for row in self.catalog.groups:
            if row["group_name"] not in taken:
                self._group(row, new.get(row["outbox_name"]))
        for row in self.catalog.inboxes:
            self._inbox(row)
        for row, made in pipelines:
            self._pipeline(row, made, "outbox", new.get(made.box or ""))
        for row in self.catalog.reverse:
            self._pipeline(row, reverse(row["config"]), "inbox", None)

    def _outbox(self, row: Row, pipelines: list[tuple[Row, Translated]]) -> int | None:
        """The id above which a new outbox begins; None if it exists already."""
        name = row["outbox_name"]
        if self._exists("select from tide.outbox o where o.name = %s", name):
            self.done.append(f"outbox {name} exists already: not changed, no messages copied")
            return None
        readers = [self._offset(other["name"], made) for other, made in pipelines if made.box == name]
        readers += [
            self.catalog.group_offsets.get(g["group_name"], 0) for g in self.catalog.groups if g["outbox_name"] == name
        ]
        floor = min(readers) if readers else None
        last = max([catalogs.last_id(self.connection, self.catalog, name), *readers])
        waiting, first = catalogs.count_messages(self.connection, self.catalog, name, floor)
        catalogs.create_outbox(self.connection, row, first if self.messages and waiting else last, last)
        if self.messages:
            catalogs.copy_messages(self.connection, self.catalog, name, floor)
            self.done.append(
                f"outbox {name}: created, {counted(waiting, 'message')} copied with ids; the next has id {last + 1}"
            )
        else:
            self.done.append(f"outbox {name}: created; the next message has id {last + 1}")
            if waiting:
                left = counted(waiting, "message is", "messages are")
                self.by_hand.append(f"outbox {name}: {left} not copied: see --messages")
        return last

    def _group(self, row: Row, last: int | None) -> None:
        name, outbox = row["group_name"], row["outbox_name"]
        if last is None:
            self.done.append(f"consumer group {name}: not changed, like its outbox")
            return
        reset = "latest" if row["auto_offset_reset"] == "latest" else "earliest"
        self.connection.execute("select tide.create_consumer_group(%s, %s, %s)", [name, outbox, reset])
        offset = self.catalog.group_offsets.get(name, last if reset == "latest" else 0) if self.messages else last
        catalogs.set_offset(self.connection, outbox, name, offset)
        self.done.append(f"consumer group {name} of outbox {outbox}: created, offset {offset}")

    def _inbox(self, row: Row) -> None:
        name = row["inbox_name"]
        theirs = catalogs.inbox_table(self.connection, self.catalog, row)
        schema = "tide" if row["inbox_schema"] in ("tide", self.catalog.schema) else row["inbox_schema"]
        if self._exists("select from tide.inbox i where i.name = %s", name):
            self.done.append(f"inbox {name} exists already: not changed")
            return
        self.connection.execute(
            "select tide.inbox_create(%s, %s, max_retries => %s, processed_retention_hours => %s,"
            " dead_retention_hours => %s)",
            [name, schema, row["max_retries"], row["processed_retention_hours"], row["dlq_retention_hours"]],
        )
        copied = ""
        if self.messages and theirs is not None:
            copied = f", {counted(catalogs.copy_inbox(self.connection, name, schema, theirs), 'row')} copied"
        self.done.append(f"inbox {name}: created, table {schema}.{name}{copied}")
        self.by_hand.append(f"change what reads table {row['inbox_schema']}.{name}_inbox to read {schema}.{name}")

    def _pipeline(self, row: Row, made: Translated, direction: str, last: int | None) -> None:
        name = row["name"]
        if self._exists("select from tide.pipeline p where p.name = %s", name):
            self.done.append(f"pipeline {name} exists already: not changed")
            return
        number: int | None = None
        if made.left_out:
            self.by_hand.append(f"pipeline {name}: there is no key for {', '.join(made.left_out)}")
        if last is not None and made.box:
            number = self._offset(name, made) if self.messages else last
            catalogs.set_offset(self.connection, made.box, made.group or name, number)
        if made.problem:
            self.by_hand.append(f"pipeline {name} was not created: {made.problem}; its configuration, translated: "
                                f"{json.dumps(mask_config(made.config))}")  # fmt: skip
            return
        if direction == "outbox":
            given = [name, made.box, made.group or name, Jsonb(made.config)]
            self.connection.execute("select tide.relay_set_outbox(%s, %s, %s, %s)", given)
        else:
            self.connection.execute("select tide.relay_set_inbox(%s, %s, %s)", [name, made.box, Jsonb(made.config)])
        enabled = self.enable and row.get("enabled", True)
        if not enabled:
            self.connection.execute("select tide.relay_disable(%s)", [name])
        offset = "" if number is None else f", offset {number}"
        state = "enabled" if enabled else "disabled: relay pipeline enable " + name
        way = "from outbox" if direction == "outbox" else "into inbox"
        self.done.append(f"pipeline {name} {way} {made.box}: created{offset}, {state}")

    def _offset(self, pipeline: str, made: Translated) -> int:
        """The offset of a pipeline: its own, or that of the group as which it polled."""
        offsets = self.catalog.pipeline_offsets
        return offsets.get(pipeline, self.catalog.group_offsets.get(made.group or "", 0))

    def _exists(self, statement: Any, name: str) -> bool:
        return self.connection.execute(statement, [name]).fetchone() is not None
