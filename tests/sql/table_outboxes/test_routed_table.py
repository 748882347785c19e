"""Routed tables: a table in the form of Debezium's outbox, whose rows are messages."""

import json
import threading

import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import refused
from tests.sql.table_outboxes.routed_tables import IDS, TABLE, ids, insert, messages, route
from tests.sql.table_outboxes.table_outboxes import status


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute(TABLE)
        yield connection


def test_a_row_is_a_message(db):
    assert route(db) == "public.outbox"
    insert(db, 1, {"total": 12.50})
    assert messages(db) == [
        ("customer-1", {"id": IDS[1], "type": "OrderCreated", "aggregate_type": "order"}, {"total": 12.5})
    ]


def test_rows_of_a_statement_come_in_its_order_and_those_of_copy_too(db):
    route(db)
    db.execute(
        "insert into public.outbox select gen_random_uuid(), 'order', n::text, 't', to_jsonb(n)"
        " from generate_series(1, 2500) n"
    )
    with db.cursor() as cursor, cursor.copy("copy public.outbox from stdin") as copy:
        for n in range(2501, 2601):
            copy.write_row([f"{n:032x}", "order", str(n), "t", str(n)])
    assert [payload for *_, payload in messages(db)] == list(range(1, 2601))


def test_rows_that_are_deleted_at_once_or_rolled_back(db):
    route(db)
    with db.transaction():
        insert(db, 1)
        db.execute("delete from public.outbox")
    with db.transaction(force_rollback=True):
        insert(db, 2)
    db.execute("with new as (insert into public.outbox values (%s, 'o', 'k', 't') returning id) delete from"
               " public.outbox o using new where o.id = new.id", [IDS[3]])  # fmt: skip
    assert ids(db) == [IDS[1], IDS[3]]


def test_updates_deletes_and_truncate_publish_nothing(db):
    route(db)
    insert(db, 1)
    db.execute("update public.outbox set type = 'Other'; delete from public.outbox; truncate public.outbox")
    assert ids(db) == [IDS[1]]


def test_of_an_upsert_only_what_is_new(db):
    insert(db, 1)
    route(db)
    db.execute(
        "insert into public.outbox select unnest(%s::uuid[]), 'order', 'k', 't'"
        " on conflict (id) do update set type = 'again'",
        [IDS[1:3]],
    )
    assert ids(db) == [IDS[2]]


def test_a_null_payload_is_null(db):
    route(db)
    db.execute("insert into public.outbox values (%s, 'order', 'gone', 't', null)", [IDS[1]])
    assert messages(db)[0][2] is None


def test_columns_of_other_names_and_headers(db):
    db.execute("""create table app_events (event_id bigint primary key, kind text not null, entity int, what text,
                  body text, trace text, priority int, unused text)""")
    columns = {"id": "event_id", "aggregate_type": "kind", "aggregate_id": "entity", "type": "what", "payload": "body"}
    route(db, "app_events", columns=columns, headers={"traceparent": "trace", "priority": "priority"}, outbox="events")
    db.execute(
        """insert into app_events values (1, 'order', 7, 'paid', '{"a": 1}', '00-ab', 5),
                                         (2, 'o', null, null, 'no "json', null, null)"""
    )
    db.execute("alter table app_events rename to events; alter table events drop column trace")
    db.execute("insert into events (event_id, kind, body, priority) values (3, 'o', '[]', 6)")
    assert messages(db, "events") == [
        ("7", {"id": "1", "aggregate_type": "order", "type": "paid", "traceparent": "00-ab", "priority": "5"},
         {"a": 1}),
        (None, {"id": "2", "aggregate_type": "o"}, 'no "json'),
        (None, {"id": "3", "aggregate_type": "o", "priority": "6"}, []),
    ]  # fmt: skip


def test_concurrent_sessions_publish_every_row_and_wait_for_nobody(database, db):
    route(db)

    def write(number):
        with database.connect() as connection:
            for n in range(20):
                connection.execute(
                    "insert into public.outbox values (gen_random_uuid(), 'order', %s, 't', %s)",
                    [str(number), Jsonb(n)],
                )

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    with db.transaction():
        insert(db, 1, "open while the others write")
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert not any(writer.is_alive() for writer in writers)
    seen = {str(number): [payload for key, _, payload in messages(db) if key == str(number)] for number in range(4)}
    assert seen == {str(number): list(range(20)) for number in range(4)}


def test_rows_from_before_are_published_once_in_order_or_not(db):
    db.execute("alter table public.outbox add column made int")
    for n in (3, 1, 2):
        db.execute("insert into public.outbox values (%s, 'order', 'k', 't', '1', %s)", [IDS[n], n])
    route(db)
    assert ids(db) == []
    route(db, existing=True, existing_order="made")
    insert(db, 4)
    route(db, existing=True)
    assert ids(db) == [IDS[1], IDS[2], IDS[3], IDS[4]]


def test_without_an_order_rows_from_before_come_as_they_lie(db):
    for n in (3, 1, 2):
        insert(db, n, n)
    route(db, existing=True)
    assert ids(db) == [IDS[3], IDS[1], IDS[2]]


def test_a_row_of_a_transaction_that_was_open_is_neither_missed_nor_doubled(database, db):
    with database.connect() as writer, writer.transaction():
        insert(writer, 1)
        with refused("55P03"):
            route(db, existing=True)
    route(db, existing=True)
    insert(db, 2)
    assert ids(db) == [IDS[1], IDS[2]]


def test_existing_rows_need_a_snapshot_of_the_moment(db):
    with refused("25000", hint="read committed"), db.transaction():
        db.execute("set transaction isolation level repeatable read")
        route(db, existing=True)


def test_a_transaction_with_an_older_snapshot_runs_again(database, db):
    with database.connect() as old, refused("40001"), old.transaction():
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1 from pg_class")
        route(db)
        insert(old, 1)


def test_partitions_of_other_column_orders_are_covered(db):
    db.execute("""
        create table events (id int not null, aggregatetype text not null, aggregateid text, type text, payload jsonb)
            partition by range (id);
        create table events_1 partition of events for values from (0) to (10);
        create table events_2 (payload jsonb, gone int, type text, id int not null, aggregateid text,
            aggregatetype text not null);
        alter table events_2 drop column gone;
        alter table events attach partition events_2 for values from (10) to (20);
    """)
    route(db, "events")
    db.execute("insert into events values (1, 'a', 'k', 't', '1'), (11, 'b', 'k', 't', '2')")
    db.execute("insert into events_2 (id, aggregatetype, payload) values (12, 'c', '3')")
    assert [(headers["id"], payload) for _, headers, payload in messages(db, "public.events")] == [
        ("1", 1), ("11", 2), ("12", 3)]  # fmt: skip
    db.execute("create table events_3 partition of events for values from (20) to (30)")
    assert "events_3 is missing" in status(db, "events")["problem"]
    route(db, "events")
    assert status(db, "events")["intact"]


@pytest.mark.parametrize("kind", ["text", "json", "varchar(200)"])
@pytest.mark.parametrize("text", ['{"a": 1.50}', '"\\u0000"', "12", "null"])
def test_payloads_of_other_types(db, kind, text):
    db.execute(f"alter table public.outbox alter column payload type {kind}")
    route(db)
    db.execute("insert into public.outbox values (%s, 'o', 'k', 't', %s)", [IDS[1], text])
    assert messages(db)[0][2] == (text if "u0000" in text else json.loads(text))


def test_settings_of_a_writer_change_nothing(db):
    db.execute("""create table e (id timestamptz primary key, aggregatetype text not null, aggregateid interval,
                  type text, payload jsonb)""")
    route(db, "e")
    db.execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set intervalstyle = 'postgres'")
    db.execute("insert into e values ('2026-01-02T03:04:05Z', 'a', '90 minutes')")
    [(key, headers, _)] = messages(db, "public.e")
    assert (headers["id"], key) == ("2026-01-02 03:04:05+00", "PT1H30M")


def test_the_outbox_stays_until_the_table_is_routed_no_more(db):
    route(db)
    with refused("2BP01", hint="table_outbox_unroute"):
        db.execute("select tide.outbox_drop('public.outbox')")
    db.execute("select tide.table_outbox_unroute('public.outbox', drop_outbox => true)")
    insert(db, 1)
    assert db.execute("select count(*) from tide.outbox").fetchone() == (0,)
    route(db)
    db.execute("drop table public.outbox")
    (problem,) = db.execute("select problem from tide.table_outbox_status()").fetchone()
    assert problem.startswith("the table was dropped: ")
    db.execute("select tide.outbox_drop('public.outbox')")


def test_a_disabled_trigger_is_told_and_mended(db):
    route(db)
    db.execute("alter table public.outbox disable trigger tide_outbox_route")
    assert "disabled" in status(db, "public.outbox")["problem"]
    route(db)
    found = status(db, "public.outbox")
    assert (found["mode"], found["intact"], found["problem"]) == ("routed", True, None)
