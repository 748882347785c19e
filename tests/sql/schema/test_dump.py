"""A database that was dumped and restored goes on where it was: outboxes, inboxes, consumers, tables as outboxes."""

import os
import subprocess
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.sql.support import make_pipeline, publish, publish_many

pytestmark = pytest.mark.each_postgres

MADE = """
create table public.customer (id int primary key, name text);
create table public.orders (id int primary key) partition by range (id);
create table public.orders_first partition of public.orders for values from (0) to (1000);
select tide.table_outbox_enable('public.customer');
select tide.table_outbox_enable('public.orders', mode => 'row');
create table public.events (
    gone int, aggregatetype text not null, id int not null, aggregateid text, type text, payload jsonb);
alter table public.events drop column gone;
select tide.table_outbox_route('public.events');
insert into public.customer values (1, 'Ada');
insert into public.orders values (1);
select tide.inbox_create('letters');
select tide.enable_inbox_ordering('letters', 'aggregate_id', 'event_sequence');
select tide.create_consumer_group('group', 'orders');
select tide.setting_set('max_retention_hours', '99');
"""


@pytest.fixture
def restored(database, empty_database, tmp_path):
    """A session on a database restored from the dump of another, which had a bit of everything."""
    make_pipeline(database, partition_size=1000)
    with database.connect() as db:
        db.execute(MADE)
        for _ in range(3):
            publish_many(db, 500)
            db.execute("select tide.outbox_extend('orders')")
        letters(db, "1", "2")
        db.execute("select tide.poll_outbox('group', 'worker', 10)")
        db.execute("select tide.commit_offset('group', 'worker', 10)")
    program(database, "pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", f"--dbname={database.name}")
    program(empty_database, "pg_restore", f"--dbname={empty_database.name}", "--exit-on-error", str(tmp_path / "dump"))
    with empty_database.connect() as db:
        yield db


def test_it_goes_on_where_it_was(restored):
    assert publish(restored) == 1501, "ids go on"
    assert one(restored, "select (tide.outbox_status('orders')).horizon") == 1501
    assert one(restored, "select min(id) from tide.poll_outbox('group', 'worker', 10)") == 11
    assert one(restored, "select tide.setting_number('max_retention_hours')") == 99


def test_its_views_publish_and_its_bells_are_kept(restored):
    insert = "insert into tide_outbox.orders (payload) values ('1') returning id"
    assert one(restored, insert) == 1501
    restored.execute("select tide.outbox_disable('orders')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        restored.execute(insert)


def test_tables_are_outboxes_still(restored):
    restored.execute("insert into customer values (2, 'Grace'); insert into orders values (2)")
    assert restored.execute("select outbox, last_id, intact from tide.table_outbox_status()").fetchall() == [
        ("public.customer", 2, True),
        ("public.events", 0, True),
        ("public.orders", 2, True),
    ]


def test_a_routed_table_publishes_the_same_columns(restored):
    """Their numbers are others now."""
    restored.execute("insert into events values ('order', 7, 'key', 'made', '{}')")
    assert restored.execute("select key, headers from tide.message where outbox_id = (select outbox_id from tide.outbox"
                            " where name = 'public.events')").fetchall() == [
        ("key", {"id": "7", "type": "made", "aggregate_type": "order"})]  # fmt: skip


def test_an_inbox_knows_what_it_has_and_in_which_order(restored):
    assert letters(restored, "1", "3") == 1
    assert restored.execute("select event_id from tide.inbox_claim('letters', 'worker')").fetchall() == [("1",)]
    assert one(restored, "select tide.inbox_mark_processed('letters', array['1'])") == 1
    assert restored.execute("select event_id from tide.next_letters").fetchall() == [("2",)]


def test_retention_finds_its_partitions_and_outboxes_come_and_go(restored):
    restored.execute("update tide.consumer_group set offset_id = 1500")
    restored.execute("select tide.outbox_set_retention('orders', 0)")
    assert one(restored, "select truncated from tide.outbox_retain('orders')") == 1
    assert one(restored, "select dropped from tide.outbox_retain('orders')") == 1
    restored.execute("select tide.outbox_create('new')")
    assert publish(restored, "new") == 1
    restored.execute("select tide.outbox_drop('new')")


def letters(db, *event_ids):
    """Writes messages into the inbox; how many were new."""
    numbers = [int(event_id) for event_id in event_ids]
    same, nothing = ["x"] * len(event_ids), [None] * len(event_ids)
    return db.execute(
        "select tide.inbox_write('letters', %s, %s, %s, %s, %s, %s, %s, %s)",
        [list(event_ids), same, same, same, numbers, ["1"] * len(event_ids), nothing, nothing],
    ).fetchone()[0]


def one(db, statement):
    return db.execute(statement).fetchone()[0]


def program(database, name, *arguments):
    """One of PostgreSQL's programs, as the owner of the database."""
    url = urlsplit(database.url)
    command = [database.server.clients / name, "--host=127.0.0.1", f"--port={url.port}"]
    done = subprocess.run(
        [*command, f"--username={url.username}", *arguments],
        env=os.environ | {"PGPASSWORD": url.password or ""}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
