"""tide.outbox_skip_ids: after a restore to an earlier time no id comes twice, and nothing else changes."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.support import Follower, horizon, make_pipeline, publish, publish_many, reader_of, refused
from tests.waiting import wait_until

Db = psycopg.Connection[Any]


@pytest.fixture
def db(database: Database) -> Iterator[Db]:
    make_pipeline(database, partition_size=10_000)
    with database.connect() as connection:
        yield connection


def skip(db: Db, margin: int = 1_000_000, outbox: str = "orders") -> int:
    [(first_id,)] = db.execute("select tide.outbox_skip_ids(%s, %s)", [outbox, margin]).fetchall()
    return int(first_id)


def home(db: Db, message_id: int) -> str:
    """The partition that a message is in."""
    [(name,)] = db.execute("select tableoid::regclass::text from tide.message where id = %s", [message_id]).fetchall()
    return str(name)


@pytest.mark.parametrize("margin", [1000, 4_000, 9_999, 10_000, 12_345, 1_000_000, 1_000_000_000])
def test_new_ids_begin_above_the_margin_in_a_partition_with_room(db: Db, margin: int) -> None:
    publish_many(db, 100)
    first = skip(db, margin)
    assert first > 100 + margin
    for expected in (first, first + 1):
        assert publish(db) == expected
        assert home(db, expected).startswith("tide.message_") and not home(db, expected).endswith("_rest")
    publish_many(db, 4_000)
    assert db.execute("select count(*) from only tide.message_1_rest").fetchall() == [(0,)]


def test_partitions_go_on_ahead_of_need(db: Db) -> None:
    first = skip(db)
    publish(db)
    assert db.execute("select tide.outbox_extend('orders')").fetchall() in ([(0,)], [(1,)])
    for _ in range(4):
        last = publish_many(db, 6_000)[-1]
        db.execute("select tide.outbox_extend('orders')")
    assert last == first + 24_000
    assert db.execute("select count(*) from only tide.message_1_rest").fetchall() == [(0,)]


def test_readers_pass_over_the_gap(db: Db, database: Database) -> None:
    before = publish_many(db, 10)
    with reader_of(database) as reader:
        follower = Follower(reader)
        assert follower.to_end() == before
        skip(db)
        after = [publish(db), publish(db)]
        assert follower.to_end() == before + after


def test_consumers_in_sql_pass_over_the_gap(db: Db) -> None:
    db.execute("select tide.create_consumer_group('billing', 'orders')")
    wanted = [publish(db)]
    skip(db)
    wanted.append(publish(db))
    got = db.execute("select (tide.poll_outbox('billing', 'a')).id").fetchall()
    assert [row[0] for row in got] == wanted


def test_a_publisher_that_is_open_still_holds_the_horizon(db: Db, database: Database) -> None:
    with database.connect() as slow:
        with slow.transaction():
            early = publish(slow)
            first = skip(db, 4_000)  # into a partition that is there: no one waits
            fast = publish(db)
            assert fast == first
            assert horizon(db)[0] < early
            late = publish(slow)
            assert late == fast + 1
        assert horizon(db)[0] == late


def test_where_a_partition_must_be_made_nobody_may_have_the_others_open(db: Db, database: Database) -> None:
    with database.connect() as slow, slow.transaction():
        publish(slow)
        with refused("55P03", 'the ids of outbox "orders" were not moved', hint="Call it again"):
            skip(db)
        assert publish(db) == 2, "nothing was changed"
    assert skip(db) > 1_000_000


def test_no_skip_leaves_an_open_publisher_so_far_behind_that_its_mark_means_something_else(
    db: Db, database: Database
) -> None:
    db.execute("select tide.outbox_create('clicks', partition_size => 1000000000)")
    with database.connect() as slow, slow.transaction():
        publish(slow, "clicks")
        skip(db, 1_000_000_000, "clicks")
        with refused("55000", "while a publisher is open", hint="relay status"):
            skip(db, 1_000_000_000, "clicks")
        publish(db, "clicks")
        assert horizon(db, "clicks")[0] == 0
    assert skip(db, 1_000_000_000, "clicks") > 2_000_000_000


def test_publishers_go_on_meanwhile(db: Db, database: Database) -> None:
    """Skips under load: every message is stored, no id comes twice, none falls into the default partition."""
    stop = threading.Event()
    ids: list[int] = []
    troubles: list[psycopg.Error] = []

    def publisher() -> None:
        try:
            with database.connect() as own:
                while not stop.is_set():
                    ids.extend(publish_many(own, 3))
        except psycopg.Error as error:
            troubles.append(error)

    threads = [threading.Thread(target=publisher) for _ in range(4)]
    for thread in threads:
        thread.start()
    done = 0

    def ten_times() -> bool:
        nonlocal done
        with suppress(psycopg.errors.LockNotAvailable):
            skip(db)
            done += 1
        return done >= 10

    try:
        wait_until(ten_times, 120, "ids have skipped ten times")
    finally:
        stop.set()
    for thread in threads:
        thread.join(60)
    assert troubles == []
    stored = [row[0] for row in db.execute("select id from tide.message order by id")]
    assert stored == sorted(ids) and len(set(ids)) == len(ids) and stored[-1] > 1_000_000 * (done - 1)
    assert db.execute("select count(*) from only tide.message_1_rest").fetchall() == [(0,)]


def test_what_a_dry_run_says_is_what_happens(db: Db) -> None:
    publish(db)
    [(planned,)] = db.execute("select tide.outbox_skip_ids('orders', dry_run => true)").fetchall()
    assert publish(db) == 2
    assert skip(db) in (planned, planned + 1)


@pytest.mark.parametrize("margin", [None, -1, 999, 1_000_000_001])
def test_margins_that_make_no_sense_are_refused(db: Db, margin: int | None) -> None:
    with refused("22023", 'the ids of outbox "orders" cannot skip', hint="1000 to 1000000000"):
        db.execute("select tide.outbox_skip_ids('orders', %s::bigint)", [margin])
    with refused("22023", "epochs cannot skip"):
        db.execute("select tide.relay_skip_epochs(%s::bigint)", [margin])


def test_an_outbox_that_is_not_there_is_refused(db: Db) -> None:
    with refused("42704", 'outbox "nope" does not exist'):
        skip(db, outbox="nope")


def test_epochs_and_revisions_begin_above_what_was_given(db: Db) -> None:
    [(epoch, revision)] = db.execute("select nextval('tide.epochs'), nextval('tide.revisions')").fetchall()
    [(passed,)] = db.execute("select tide.relay_skip_epochs()").fetchall()
    [(next_epoch, next_revision)] = db.execute("select nextval('tide.epochs'), nextval('tide.revisions')").fetchall()
    assert next_epoch == passed + 1 > epoch + 1_000_000
    assert next_revision > revision + 1_000_000


def test_the_rows_of_table_outboxes_get_the_new_ids_too(db: Db) -> None:
    db.execute("create table public.shelf (id int primary key)")
    db.execute("select tide.table_outbox_enable('public.shelf')")
    [(outbox,)] = db.execute("select name from tide.outbox where name <> 'orders'").fetchall()
    first = skip(db, outbox=outbox)
    db.execute("insert into public.shelf values (1)")
    assert db.execute("select id from tide.message").fetchall() == [(first,)]


def test_retention_removes_the_partitions_that_were_passed_over(db: Db) -> None:
    publish_many(db, 10)
    skip(db)
    last = publish(db)
    db.execute("update tide.outbox set retention_hours = 0")
    db.execute("update tide.consumer_group set offset_id = %s", [last])
    for _ in range(3):
        db.execute("select * from tide.outbox_retain('orders')")
    left = db.execute("select count(*) from tide.outbox_partitions(1) where end_id <= %s", [last]).fetchall()
    assert left == [(0,)]


# Copied without sequences --------------------------------------------------------------------------------------------

FAR = 50_000_000


STORED_OF_MESSAGES = {
    "offset": "update tide.consumer_group set offset_id = %s",
    "message": "insert into tide.message (outbox_id, id, size, headers, payload) values (1, %s, 0, '{}', '1')",
    "lease": """insert into tide.consumer_lease (group_id, after_id, last_id, settled)
                select group_id, 5, %s, true from tide.consumer_group""",
    "dead letter": """insert into tide.dead_letter (pipeline, outbox, message_id, payload, code, reason)
                      values ('gone', 'orders', %s, '1', 'x', 'x')""",
    "replay": """insert into tide.replay (pipeline, outbox_id, from_id, to_id, next_id, requested_by)
                 select name, 1, 1, %s, 1, 'me' from tide.pipeline""",
    "loss": """insert into tide.retention_loss
                   (outbox, consumer_group, reason, messages, first_id, last_id, first_at, last_at)
               values ('orders', 'g', 'disabled', 1, 1, %s, now(), now())""",
}
STORED_OF_JOBS = {
    "cursor": "update tide.job_lane set cursor_id = %s",
    "cancelled": "insert into tide.job_skip (outbox_id, id) select outbox_id, %s from tide.job_queue",
    "lease": """insert into tide.job_lease (outbox_id, worker_id, ids, open)
                select outbox_id, 1, int8multirange(int8range(1, %s + 1)), 1 from tide.job_queue""",
    "dead": """insert into tide.job_dead (outbox_id, id, attempts, job)
               select outbox_id, %s, 1, '{}' from tide.job_queue""",
    "key": """insert into tide.job_key (outbox_id, kind, key, id, digest)
              select outbox_id, 'i', 'k', %s, '' from tide.job_queue""",
    "needed": "insert into tide.job_dependency select outbox_id, %s, outbox_id, 1, false, false from tide.job_queue",
}


@pytest.mark.parametrize("stored", STORED_OF_MESSAGES.values(), ids=STORED_OF_MESSAGES)
def test_new_ids_begin_above_whatever_is_stored(db: Db, stored: str) -> None:
    publish_many(db, 10)
    db.execute(stored, [FAR])
    first = skip(db, 1000)
    assert first > FAR + 1000
    assert publish(db) == first and not home(db, first).endswith("_rest")


@pytest.mark.parametrize("stored", STORED_OF_JOBS.values(), ids=STORED_OF_JOBS)
def test_new_jobs_get_ids_above_whatever_is_stored(db: Db, stored: str) -> None:
    db.execute("select tide.job_queue_create('mail')")
    db.execute("select tide.job_enqueue('mail', 'send', '{}')")
    db.execute(stored, [FAR])
    first = skip(db, 1000, "jobs/mail")
    assert first > FAR + 1000
    db.execute("select tide.job_enqueue('mail', 'send', '{}')")
    assert db.execute("select max(id) from tide.job").fetchall() == [(first,)]


def test_ids_may_skip_far_where_no_publisher_is_open(db: Db, database: Database) -> None:
    db.execute("update tide.consumer_group set offset_id = 7000000000")
    with database.connect() as slow, slow.transaction():
        publish(slow)
        with refused("55000", "while a publisher is open"):
            skip(db)
    assert publish(db) == 2, "nothing was changed"
    assert publish(db) < skip(db) == publish(db) > 7_000_000_000


def test_epochs_and_revisions_begin_above_what_is_stored(db: Db) -> None:
    db.execute("update tide.drain set epoch = 70000000; update tide.pipeline set revision = 80000000")
    db.execute("select tide.relay_skip_epochs()")
    [(epoch, revision)] = db.execute("select nextval('tide.epochs'), nextval('tide.revisions')").fetchall()
    assert epoch > 70_000_000 and revision > 80_000_000


def test_every_other_sequence_is_set_above_what_is_stored(db: Db) -> None:
    """Found in the catalog, so that a table that is added one day is not forgotten."""
    db.execute("select tide.inbox_create('arrived')")
    db.execute("insert into tide.arrived (inbox_seq, event_id) overriding system value values (5000, 'a')")
    columns = db.execute(
        """select c.relname, a.attname, pg_get_serial_sequence('tide.' || c.relname, a.attname)
             from pg_class c join pg_attribute a on a.attrelid = c.oid
            where c.relnamespace = 'tide'::regnamespace and a.attidentity <> ''"""
    ).fetchall()
    assert len(columns) > 10
    db.execute("insert into tide.arrived (event_id) values ('b')")
    db.execute(
        """insert into tide.dead_letter (dead_letter_id, pipeline, outbox, message_id, payload, code, reason)
           overriding system value values (6000, 'p', 'orders', 1, '1', 'x', 'x')"""
    )
    planned = db.execute("select * from tide.relay_raise_sequences(true) order by 1").fetchall()
    assert planned == [
        ("tide.arrived_inbox_seq_seq", 1, 5000, None),
        ("tide.dead_letter_dead_letter_id_seq", 0, 6000, None),
    ]
    assert db.execute("select * from tide.relay_raise_sequences() order by 1").fetchall() == planned
    assert db.execute("select * from tide.relay_raise_sequences()").fetchall() == []
    for table, column, sequence in columns:
        [(stored, following)] = db.execute(
            f"select (select coalesce(max({column}), 0) from tide.{table}), nextval(%s)", [sequence]
        ).fetchall()
        assert following > stored, (table, column)


def test_an_inbox_that_is_not_to_be_touched_is_named_and_the_others_are_raised(db: Db, database: Database) -> None:
    with database.admin() as admin:
        admin.execute("insert into tide.inbox (name, table_schema, table_name) values ('letters', 'tide', 'letters')")
    db.execute(
        "insert into tide.pipeline_history (history_id, pipeline, action, changed_by, program)"
        " overriding system value values (9000, 'p', 'create', 'me', 'psql')"
    )
    found = {row[0]: row for row in db.execute("select * from tide.relay_raise_sequences()")}
    assert "is gone" in found["inbox letters"][3] and found["inbox letters"][1:3] == (None, None)
    assert found["tide.pipeline_history_history_id_seq"][2] == 9000
