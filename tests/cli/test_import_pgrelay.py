"""`relay import pgrelay`: what waits and what is dead comes over, once, with its attempts and keys."""

import json
from typing import Any

import pytest

from tests.cli.command import invoke
from tests.services.postgres import Database

TABLES = """
create table pgrelay_queue (name text primary key, paused boolean not null default false,
    concurrency_limit integer not null default 8, created_at timestamptz not null default now(),
    updated_at timestamptz not null default now());
create table pgrelay_job (
    id uuid primary key default gen_random_uuid(), queue_name text not null references pgrelay_queue,
    kind text not null, name text not null, payload jsonb not null default '{}', headers jsonb not null default '{}',
    metadata jsonb not null default '{}', status text not null default 'pending', priority integer not null default 0,
    max_attempts integer not null default 10, attempt_count integer not null default 0,
    available_at timestamptz not null default now(), timeout_seconds integer not null default 30, idempotency_key text,
    dedupe_key text, replayed_from_job_id uuid, locked_by text, locked_until timestamptz, last_error_type text,
    last_error_message text, last_response_status integer, trace_id text, created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(), completed_at timestamptz);
create table pgrelay_attempt (id uuid primary key default gen_random_uuid(), job_id uuid not null);
create table pgrelay_worker (worker_id text primary key);
insert into pgrelay_queue (name, paused, concurrency_limit) values ('default', false, 3), ('slow', true, 1);
insert into pgrelay_job (queue_name, kind, name, payload, status, attempt_count, idempotency_key, priority, trace_id,
                         last_error_type, last_error_message)
values ('default', 'handler', 'orders.recalculate_totals', '{"order_id": "1"}', 'pending', 2, 'k1', 5, 't', null, null),
       ('default', 'http', 'order.webhook',
        '{"url": "https://example.com", "method": "POST", "headers": {"X-A": "1"}, "body_base64": "aGk="}',
        'pending', 0, null, 0, null, null, null),
       ('slow', 'handler', 'report', '{}', 'dead_letter', 10, 'k3', 0, null, 'TimeoutError', 'too slow'),
       ('default', 'handler', 'done', '{}', 'succeeded', 1, null, 0, null, null, null),
       ('default', 'handler', 'busy', '{}', 'leased', 1, null, 0, null, null, null)
"""


@pytest.fixture
def theirs(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute(TABLES.encode())
    return database


def imported(database: Database, *options: str) -> list[str]:
    result = invoke("import", "pgrelay", *options, url=database.url)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(statement.encode()).fetchall()


def test_what_waits_and_what_is_dead_comes_over_once(theirs: Database) -> None:
    shown = imported(theirs, "--dry-run")
    assert rows(theirs, "select count(*) from tide.job") == [(0,)]
    assert imported(theirs) == shown
    assert shown == [
        "queue default created",
        "queue slow created, paused",
        "2 waiting jobs copied, and cancelled in PgRelay",
        "1 dead letter copied",
        (
            "by hand: 1 job is leased by workers of PgRelay: stop those, wait until the leases have run out, "
            "and import again"
        ),
    ]
    fields = "name, payload, headers, idempotency_key, priority, trace_id"
    webhook = {"url": "https://example.com", "method": "POST", "base64": "aGk="}
    assert rows(theirs, f"select {fields} from tide.job order by name") == [
        ("order.webhook", webhook, {"X-A": "1"}, None, 0, None),
        ("orders.recalculate_totals", {"order_id": "1"}, None, "k1", 5, "t"),
    ]
    # Their attempts count, and the first is the one that had two.
    claimed = rows(
        theirs,
        "select c.name, c.attempt from tide.job_queue q,"
        " tide.job_claim(q.outbox_id, tide.job_worker_start('h', 1, '{}', 1), 10) c where q.name = 'default'",
    )
    assert sorted(claimed) == [("order.webhook", 1), ("orders.recalculate_totals", 3)]
    listed = invoke("jobs", "list", "slow", "--state", "dead_letter", "--json", url=theirs.url)
    [dead] = json.loads(listed.stdout)
    assert (dead["state"], dead["name"], dead["attempts"], dead["code"]) == (
        "dead_letter",
        "report",
        10,
        "TimeoutError",
    )
    assert invoke("jobs", "replay", dead["job"], url=theirs.url).exit_code == 0
    assert rows(theirs, "select status, count(*) from pgrelay_job group by 1 order by 1") == [
        ("cancelled", 2), ("dead_letter", 1), ("leased", 1), ("succeeded", 1),
    ]  # fmt: skip
    again = imported(theirs)
    assert "0 dead letters copied" in again
    assert "0 waiting jobs copied, and cancelled in PgRelay" in again
    assert "queue default exists already: not changed" in again


def test_without_its_tables_it_says_so(database: Database) -> None:
    result = invoke("import", "pgrelay", url=database.url)
    assert result.exit_code == 1
    assert "there is no table pgrelay_queue in the schema" in result.output


def test_no_number_loses_a_digit(theirs: Database) -> None:
    text = '{"a": 1.10, "b": [12345678901234.5678901]}'
    with theirs.connect() as connection:
        connection.execute(
            f"update pgrelay_job set payload = '{text}', headers = '{text}', metadata = '{text}'".encode()
        )
    imported(theirs)
    kept = "payload::text, headers::text, (metadata - 'pgrelay_job_id')::text"
    where = "where name = 'orders.recalculate_totals'"
    assert rows(theirs, f"select {kept} from tide.job {where}") == [(text, text, text)]
