"""Reading the catalog of pg_tide, of any of its versions, and copying from its tables. Nothing is written there.

Rows are read as JSON, because later versions have columns that earlier ones lack. What reading a table runs is its
owner's, and runs with our rights: so a table counts only if it is an ordinary one, of an owner who has these rights
anyway.
"""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from relay.database.connection import Connection
from relay.errors import ConfigError
from relay.operations.foreign_tables import distrust, lock_if_there

Row = dict[str, Any]

_FIND = """
    select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relname = 'tide_outbox_config' order by 1
"""
# A claim check stands for a large object, which has the payload.
_COPY = """
    insert into tide.message (outbox_id, id, created_at, size, key, headers, payload)
    select o.outbox_id, c.id, c.created_at, octet_length(c.payload::text) + octet_length(c.headers::text), null,
           c.headers, c.payload
      from (select m.id, m.created_at,
                   case when jsonb_typeof(m.headers) = 'object' then m.headers else '{{}}' end as headers,
                   case when m.payload -> '_cc' = 'true'
                        then convert_from(lo_get((m.payload ->> 'oid')::oid), 'UTF8')::jsonb
                        else coalesce(m.payload, 'null') end as payload
              from {messages} m
             where m.outbox_name = %(outbox)s and {waiting}
             order by m.id) c
     cross join tide.outbox o
     where o.name = %(outbox)s
"""
_COPY_INBOX = """
    insert into {ours} (event_id, source, payload, headers, received_at, processed_at, retry_count, error, failed_at)
    select t.event_id, t.source, coalesce(t.payload, 'null'), coalesce(t.headers, '{{}}'), t.received_at,
           t.processed_at, t.retry_count, t.last_error, case when t.retry_count > 0 then now() end
      from {theirs} t order by t.id
    on conflict (event_id) do nothing
"""
_LARGEST_PART = 1_000_000_000


@dataclass
class Catalog:
    """Everything that pg_tide has."""

    schema: str
    outboxes: list[Row]
    groups: list[Row]
    inboxes: list[Row]
    forward: list[Row]
    reverse: list[Row]
    group_offsets: dict[str, int]
    """By group: the lowest of its consumers, above which nothing is known to be done."""
    pipeline_offsets: dict[str, int]
    """By pipeline: the lowest of its relay groups."""


def read(connection: Connection, schema: str | None) -> Catalog:
    schema = schema or _find(connection)
    # A policy may hide the rows of others: an error is better than a partial import.
    connection.execute("set local row_security = off")

    def table(name: str) -> list[Row]:
        relation = sql.Identifier(schema, name)
        if not lock_if_there(connection, relation):
            return []
        return [row for (row,) in connection.execute(sql.SQL("select to_jsonb(t) from {} t").format(relation))]

    groups: dict[str, int] = {}
    for row in table("tide_consumer_offsets"):
        name = row["group_name"]
        groups[name] = min(groups.get(name, row["committed_offset"]), row["committed_offset"])
    pipelines: dict[str, int] = {}
    for row in table("relay_consumer_offsets"):
        name, offset = row["pipeline_id"], int(row.get("last_change_id") or row.get("last_offset") or 0)
        pipelines[name] = min(pipelines.get(name, offset), offset)
    return Catalog(
        schema,
        _sorted(table("tide_outbox_config"), "outbox_name"),
        _sorted(table("tide_consumer_groups"), "group_name"),
        _sorted(table("tide_inbox_config"), "inbox_name"),
        _sorted(table("relay_outbox_config"), "name"),
        _sorted(table("relay_inbox_config"), "name"),
        groups,
        pipelines,
    )


def _sorted(rows: list[Row], by: str) -> list[Row]:
    return sorted(rows, key=lambda row: str(row[by]))


def _find(connection: Connection) -> str:
    found: list[str] = []
    wrong: list[str] = []
    for (schema,) in connection.execute(_FIND).fetchall():
        reason = distrust(connection, sql.Identifier(schema, "tide_outbox_config"))
        if reason is None:
            found.append(schema)
        else:
            wrong.append(reason)
    if len(found) != 1:
        what = "; ".join([f"there are several: {', '.join(found)}" if found else "there is none", *wrong])
        raise ConfigError(f"cannot find the schema of pg_tide: {what}; name it: --schema old_tide")
    return found[0]


def _messages(connection: Connection, catalog: Catalog) -> sql.Identifier:
    relation = sql.Identifier(catalog.schema, "tide_outbox_messages")
    if not lock_if_there(connection, relation):
        raise ConfigError(f"{relation.as_string(connection)}, the table of pg_tide's messages, is not there")
    return relation


def keep_out_writers(connection: Connection, catalog: Catalog) -> None:
    """Waits for transactions that write messages, and keeps others waiting until this one ends."""
    connection.execute(sql.SQL("lock table {} in share mode").format(_messages(connection, catalog)))


def last_id(connection: Connection, catalog: Catalog, outbox: str) -> int:
    relation = _messages(connection, catalog)
    statement = sql.SQL("select coalesce(max(m.id), 0) from {} m where m.outbox_name = %s").format(relation)
    row = connection.execute(statement, [outbox]).fetchone()
    assert row
    return int(row[0])


def waiting(floor: int | None) -> sql.Composable:
    """The condition of messages still to be delivered: above the lowest offset, or not consumed if there is none."""
    return sql.SQL("m.consumed_at is null") if floor is None else sql.SQL("m.id > {}").format(sql.Literal(floor))


def count_messages(connection: Connection, catalog: Catalog, outbox: str, floor: int | None) -> tuple[int, int]:
    """How many wait, and the id of the first (0 if there is none)."""
    relation = _messages(connection, catalog)
    statement = sql.SQL("select count(*), coalesce(min(m.id), 0) from {} m where m.outbox_name = %s and {}")
    row = connection.execute(statement.format(relation, waiting(floor)), [outbox]).fetchone()
    assert row
    return int(row[0]), int(row[1])


def create_outbox(connection: Connection, row: Row, first: int, last: int) -> None:
    """An outbox whose next message has the id after `last`, with partitions from `first` on."""
    size = min(max(1_000_000, (last - first) // 50), _LARGEST_PART)
    connection.execute(
        "select tide.outbox_create(%s, retention_hours => %s, partition_size => %s)",
        [row["outbox_name"], row.get("retention_hours", 24), size],
    )
    parameters: Row = {"outbox": row["outbox_name"], "last": last}
    for part in range(max(first // size, 2), last // size + 3):
        connection.execute(
            "select tide.attach_partition(o, %(start)s) from tide.outbox o where o.name = %(outbox)s",
            parameters | {"start": part * size},
        )
    if last > 0:
        connection.execute("select setval(o.ids, %(last)s) from tide.outbox o where o.name = %(outbox)s", parameters)
    if not row.get("enabled", True):
        connection.execute("select tide.outbox_disable(%(outbox)s)", parameters)


def copy_messages(connection: Connection, catalog: Catalog, outbox: str, floor: int | None) -> None:
    relation = _messages(connection, catalog)
    statement = sql.SQL(_COPY).format(messages=relation, waiting=waiting(floor))
    connection.execute(statement, {"outbox": outbox})


def set_offset(connection: Connection, outbox: str, group: str, offset: int) -> None:
    """Creates the group if it is missing: from then on retention keeps what it has not received."""
    parameters = {"outbox": outbox, "name": group, "offset": offset}
    connection.execute(
        "insert into tide.consumer_group as g (outbox_id, name, offset_id)"
        " select o.outbox_id, %(name)s, %(offset)s from tide.outbox o where o.name = %(outbox)s"
        " on conflict (outbox_id, name, lane) do update set offset_id = excluded.offset_id",
        parameters,
    )


def inbox_table(connection: Connection, catalog: Catalog, row: Row) -> sql.Identifier | None:
    """The table of an inbox of theirs, which follows its schema when that is renamed; None if it is gone."""
    for schema in (catalog.schema if row["inbox_schema"] == "tide" else row["inbox_schema"], row["inbox_schema"]):
        relation = sql.Identifier(schema, f"{row['inbox_name']}_inbox")
        if lock_if_there(connection, relation):
            return relation
    return None


def copy_inbox(connection: Connection, name: str, schema: str, theirs: sql.Identifier) -> int:
    statement = sql.SQL(_COPY_INBOX).format(ours=sql.Identifier(schema, name), theirs=theirs)
    return connection.execute(statement).rowcount
