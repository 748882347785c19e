"""Inboxes and reverse pipelines, as people make them in SQL."""

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.types.json import Jsonb

from tests.sql.support import make_outbox, refused


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


def call(db, expression, *parameters):
    return db.execute(f"select {expression}", parameters).fetchone()[0]


def write(db, *event_ids, inbox="commands", payload='{"n": 1}'):
    size = len(event_ids)
    nothing = [None] * size
    return call(
        db,
        "tide.inbox_write(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        inbox, list(event_ids), nothing, nothing, nothing, nothing, [payload] * size, ["{}"] * size, nothing,
    )  # fmt: skip


def test_an_inbox_is_a_table_with_the_promised_columns(db):
    call(db, "tide.inbox_create('commands')")
    columns = db.execute("""
        select attname, format_type(atttypid, null) from pg_attribute
         where attrelid = 'tide.commands'::regclass and attnum > 0 order by attnum""").fetchall()
    assert dict(columns) == {
        "event_id": "text",
        "inbox_seq": "bigint",
        "event_type": "text",
        "source": "text",
        "aggregate_id": "text",
        "event_sequence": "bigint",
        "payload": "jsonb",
        "headers": "jsonb",
        "trace_id": "text",
        "received_at": "timestamp with time zone",
        "processed_at": "timestamp with time zone",
        "error": "text",
        "retry_count": "integer",
        "failed_at": "timestamp with time zone",
        "claimed_by": "text",
        "available_at": "timestamp with time zone",
    }


def test_an_application_can_write_and_mark_without_the_relay(db):
    call(db, "tide.inbox_create('commands', schema => 'tide', max_retries => 5)")
    db.execute("insert into tide.commands (event_id, event_type, payload) values ('a', 'order.placed', '{\"n\": 1}')")
    with pytest.raises(pg.UniqueViolation):
        db.execute("insert into tide.commands (event_id, payload) values ('a', '{}')")
    done = db.execute("update tide.commands set processed_at = now() where event_id = 'a' and processed_at is null")
    assert done.rowcount == 1
    assert db.execute("select retry_count, headers, error from tide.commands").fetchall() == [(0, {}, None)]


def test_an_inbox_may_live_in_another_schema_under_an_awkward_name(db):
    db.execute('create schema "my app"')
    call(db, "tide.inbox_create('Orders-In', schema => 'my app')")
    assert write(db, "a", "b", inbox="Orders-In") == 2
    assert call(db, 'count(*) from "my app"."Orders-In"') == 2
    call(db, "tide.inbox_drop('Orders-In')")
    assert call(db, """to_regclass('"my app"."Orders-In"')""") is None


def test_what_is_there_already_is_left_alone(db):
    call(db, "tide.inbox_create('commands')")
    assert write(db, "a", "b") == 2
    assert write(db, "b", "c", "a", "c", payload="[2]") == 1
    assert db.execute("select event_id, payload from tide.commands order by inbox_seq").fetchall() == [
        ("a", {"n": 1}), ("b", {"n": 1}), ("c", [2]),
    ]  # fmt: skip


def test_rows_keep_the_order_in_which_they_were_given(db):
    call(db, "tide.inbox_create('commands')")
    ids = [f"{(n * 7919) % 1000:04}" for n in range(1000)]
    write(db, *ids)
    assert [row[0] for row in db.execute("select event_id from tide.commands order by inbox_seq")] == ids


def test_a_batch_wakes_listeners_once_and_one_without_news_does_not(db, database):
    call(db, "tide.inbox_create('commands')")
    with database.connect() as listener:
        listener.execute("listen tide_inbox")
        write(db, "a", "b", "c")
        write(db, "a", "b", "c")
        db.execute("insert into tide.commands (event_id, payload) values ('d', '{}')")
        heard = [(n.channel, n.payload) for n in listener.notifies(timeout=1, stop_after=2)]
        assert heard == [("tide_inbox", "commands")] * 2
        assert list(listener.notifies(timeout=0)) == []


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a b", "a" * 51, None, "message_7"])
def test_names_that_are_not_valid_are_refused(db, name):
    with pytest.raises(pg.InvalidName, match="inbox name"):
        call(db, "tide.inbox_create(%s)", name)


def test_an_inbox_is_made_once_and_dropped_once(db):
    call(db, "tide.inbox_create('commands')")
    with pytest.raises(pg.DuplicateObject, match="exists already"):
        call(db, "tide.inbox_create('commands')")
    call(db, "tide.inbox_drop('commands')")
    with pytest.raises(pg.UndefinedObject, match='inbox "commands" does not exist') as caught:
        call(db, "tide.inbox_drop('commands')")
    assert "tide.inbox_create('commands')" in (caught.value.diag.message_hint or "")
    call(db, "tide.inbox_drop('commands', if_exists => true)")


def test_a_table_of_that_name_is_not_taken_over(db):
    db.execute("create table tide.commands (mine int)")
    with pytest.raises(pg.DuplicateTable):
        call(db, "tide.inbox_create('commands')")
    assert call(db, "count(*) from tide.inbox") == 0


def test_what_is_no_json_is_refused_and_nothing_is_written(db):
    call(db, "tide.inbox_create('commands')")
    with pytest.raises(pg.InvalidTextRepresentation):
        write(db, "a", payload="{no json")
    with pytest.raises(pg.UntranslatableCharacter):
        write(db, "a", payload='"\\u0000"')
    assert call(db, "count(*) from tide.commands") == 0


# Reverse pipelines ---------------------------------------------------------------------------------------------------

CONFIG = {"source_type": "memory"}


def set_inbox(db, name="p", inbox="commands", config=CONFIG):
    call(db, "tide.relay_set_inbox(%s, %s, %s)", name, inbox, Jsonb(config))


def positions(db):
    return db.execute("select pipeline, partition, position from tide.position order by 1, 2").fetchall()


def test_a_reverse_pipeline_is_listed_with_its_inbox(db):
    call(db, "tide.inbox_create('commands')")
    set_inbox(db)
    assert call(db, "tide.relay_get_config('p')") == {
        "name": "p", "direction": "reverse", "outbox": None, "consumer_group": None, "inbox": "commands",
        "enabled": True, "status": "enabled", "reason": None, "config": CONFIG,
    }  # fmt: skip
    call(db, "tide.relay_disable('p')")
    assert call(db, "status from tide.relay_list_configs()") == "disabled"
    call(db, "tide.relay_delete('p')")
    assert call(db, "count(*) from tide.pipeline") == 0


@pytest.mark.parametrize(
    ("name", "inbox", "config", "error", "said"),
    [
        ("p", "missing", CONFIG, pg.UndefinedObject, 'inbox "missing" does not exist'),
        ("p", "commands", [], pg.InvalidParameterValue, "must be a JSON object"),
        ("p", "commands", {}, pg.InvalidParameterValue, "no source_type"),
        ("-p", "commands", CONFIG, pg.InvalidName, "'-p' is not valid"),
    ],
)
def test_a_wrong_reverse_pipeline_is_refused_clearly(db, name, inbox, config, error, said):
    call(db, "tide.inbox_create('commands')")
    with pytest.raises(error, match=said) as caught:
        set_inbox(db, name, inbox, config)
    assert caught.value.diag.message_hint
    assert call(db, "count(*) from tide.pipeline") == 0


def test_a_pipeline_keeps_its_direction(db):
    make_outbox(db, "orders")
    call(db, "tide.inbox_create('commands')")
    call(db, "tide.relay_set_outbox('out', 'orders', '{\"sink_type\": \"memory\"}')")
    set_inbox(db, "in")
    with pytest.raises(pg.DuplicateObject, match='"out" is a forward pipeline'):
        set_inbox(db, "out")
    with pytest.raises(pg.DuplicateObject, match='"in" is a reverse pipeline'):
        call(db, "tide.relay_set_outbox('in', 'orders', '{\"sink_type\": \"memory\"}')")
    assert db.execute("select name, direction from tide.pipeline order by 1").fetchall() == [
        ("in", "reverse"), ("out", "forward"),
    ]  # fmt: skip
    assert call(db, "count(*) from tide.consumer_group") == 1


def test_positions_outlive_a_change_but_not_another_inbox_or_kind_of_source(db):
    call(db, "tide.inbox_create('commands')")
    call(db, "tide.inbox_create('others')")
    set_inbox(db)

    def remember():
        db.execute("insert into tide.position values ('p', 'a', '7') on conflict do nothing")

    remember()
    set_inbox(db, config=CONFIG | {"batch_size": 7})
    assert positions(db) == [("p", "a", "7")]
    set_inbox(db, config={"source_type": "file"})
    assert positions(db) == []
    remember()
    set_inbox(db, inbox="others", config={"source_type": "file"})
    assert positions(db) == []
    remember()
    call(db, "tide.relay_delete('p')")
    assert positions(db) == []


def test_an_inbox_in_use_is_not_dropped(db):
    call(db, "tide.inbox_create('commands')")
    set_inbox(db)
    with pytest.raises(pg.DependentObjectsStillExist, match="written by pipelines: p"):
        call(db, "tide.inbox_drop('commands')")


def test_a_change_is_told_to_schedulers(db, database):
    call(db, "tide.inbox_create('commands')")
    with database.connect() as listener:
        listener.execute("listen tide_relay_config")
        set_inbox(db)
        assert [n.payload for n in listener.notifies(timeout=5, stop_after=1)] == ["p"]


def test_an_inbox_writer_can_write_and_nothing_else(db, database):
    call(db, "tide.inbox_create('commands')")
    with database.admin() as admin:
        admin.execute("create role inbox_writer_test")
        try:
            call(db, "tide.grant_inbox_writer('inbox_writer_test')")
            admin.execute("set role inbox_writer_test")
            assert write(admin, "a") == 1
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute("select * from tide.commands")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute("select tide.inbox_create('mine')")
        finally:
            admin.execute("reset role")
            admin.execute("drop owned by inbox_writer_test; drop role inbox_writer_test")


def test_a_call_that_writes_too_much_is_refused_before_any_of_it_is_read(database):
    with database.connect() as db:
        db.execute("select tide.inbox_create('huge')")
        with refused("54000", 'inbox "huge" was given', "the limit is 268435456", hint="fewer messages"):
            db.execute(
                "select tide.inbox_write('huge', '{a}', null, null, null, null,"
                " array_fill(repeat('x', 2700000), array[100]), null, null)"
            )
