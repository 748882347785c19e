"""A database as pg_tide leaves it: the tables of its catalog with their columns, and something in them.

The shape is that of its later versions; `old` makes that of the first ones, whose offsets of pipelines are texts.
"""

import json
from typing import Any

from tests.services.postgres import Database

TABLES = """
create schema tide;
create table tide.tide_outbox_config (
    outbox_name text primary key, retention_hours int not null default 24, inline_threshold int not null default 10000,
    enabled boolean not null default true, created_at timestamptz not null default now(),
    owner text default current_user);
create table tide.tide_outbox_messages (
    id bigint generated always as identity primary key, outbox_name text not null references tide.tide_outbox_config,
    payload jsonb, headers jsonb, created_at timestamptz not null default now(), consumed_at timestamptz,
    consumer_group text);
create table tide.tide_consumer_groups (
    group_name text primary key, outbox_name text not null references tide.tide_outbox_config,
    auto_offset_reset text not null default 'earliest', created_at timestamptz not null default now());
create table tide.tide_consumer_offsets (
    group_name text not null, consumer_id text not null, committed_offset bigint not null default 0,
    last_heartbeat timestamptz not null default now(), primary key (group_name, consumer_id));
create table tide.tide_inbox_config (
    inbox_name text primary key, inbox_schema text not null default 'tide', max_retries int not null default 3,
    processed_retention_hours int not null default 72, dlq_retention_hours int not null default 0,
    created_at timestamptz not null default now(), owner text default current_user);
create table tide.relay_outbox_config (
    name text primary key, enabled boolean not null default true, config jsonb not null default '{}');
create table tide.relay_inbox_config (
    name text primary key, enabled boolean not null default true, config jsonb not null default '{}');
create table tide.relay_consumer_offsets (
    relay_group_id text not null, pipeline_id text not null, last_change_id bigint not null default 0, worker_id text,
    outbox_name text, updated_at timestamptz not null default now(), primary key (relay_group_id, pipeline_id));
create table tide."commands_inbox" (
    id bigint generated always as identity primary key, event_id text not null unique, source text, payload jsonb,
    headers jsonb, received_at timestamptz not null default now(), processed_at timestamptz,
    retry_count int not null default 0, last_error text);
-- One of its functions, which has the name and the arguments of one of ours.
create function tide.create_consumer_group(text, text, text, boolean) returns void language sql as '';
alter table tide.tide_outbox_config enable row level security;
"""
OLD = """
alter table tide.relay_consumer_offsets add column last_offset text;
update tide.relay_consumer_offsets set last_offset = last_change_id::text;
alter table tide.relay_consumer_offsets drop column last_change_id, drop column outbox_name, drop column worker_id;
"""
ROWS = """
insert into tide.tide_outbox_config (outbox_name, retention_hours, enabled)
values ('orders', 48, true), ('mails', 24, false), ('idle', 24, true);
insert into tide.tide_outbox_messages (id, outbox_name, payload, headers) overriding system value
select 5000000 + n, case when n % 2 = 0 then 'orders' else 'mails' end, jsonb_build_object('n', n),
       case when n = 4 then null else '{"type": "made"}'::jsonb end
  from generate_series(1, 10) n;
insert into tide.tide_consumer_groups (group_name, outbox_name) values ('billing', 'orders');
insert into tide.tide_consumer_offsets (group_name, consumer_id, committed_offset)
values ('billing', 'a', 5000008), ('billing', 'b', 5000004);
insert into tide.tide_inbox_config (inbox_name, max_retries) values ('commands', 5);
insert into tide.commands_inbox (event_id, source, payload, headers, processed_at, retry_count)
values ('e-1', 'nats', '{"c": 1}', '{}', now(), 0), ('e-2', 'nats', '{"c": 2}', null, null, 2);
insert into tide.relay_consumer_offsets (relay_group_id, pipeline_id, last_change_id, outbox_name)
values ('default', 'orders-to-file', 5000006, 'orders'), ('default', 'mails-to-nats', 5000003, 'mails');
"""


def forward(outbox: str, sink_type: str, sink: dict[str, Any]) -> dict[str, Any]:
    return {
        "source_type": "outbox",
        "source": {"outbox": outbox},
        "sink_type": sink_type,
        "sink": sink,
        "batch_size": 50,
    }


def reverse(inbox: str, source_type: str, source: dict[str, Any]) -> dict[str, Any]:
    sink = {"inbox": inbox, "max_retries": 3, "idempotent": True}
    return {"source_type": source_type, "source": source, "sink_type": "inbox", "sink": sink, "batch_size": 100}


def install(database: Database, path: str, *, old: bool = False) -> None:
    """Makes the catalog, as the owner of what will be tide-relay's."""
    pipelines = {
        "orders-to-file": (True, forward("orders", "file", {"path": path})),
        "orders-off": (False, forward("orders", "file", {"path": path + ".off"})),
        "mails-to-nats": (True, forward("mails", "nats", {"url": "${env:NATS_URL}", "subject": "mails.{op}"})),
        "to-slack": (True, forward("orders", "slack", {"webhook_url": "${env:SLACK}"})),
    }
    received = reverse("commands", "redis", {"url": "redis://localhost", "stream_key": "c"})
    with database.connect() as connection:
        connection.execute(TABLES)
        connection.execute(ROWS)
        for name, (enabled, config) in pipelines.items():
            connection.execute(
                "insert into tide.relay_outbox_config values (%s, %s, %s)", [name, enabled, json.dumps(config)]
            )
        connection.execute(
            "insert into tide.relay_inbox_config values ('commands-in', true, %s)", [json.dumps(received)]
        )
        if old:
            connection.execute(OLD)
