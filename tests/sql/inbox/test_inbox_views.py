"""Views, health, retention, and tables that were there before."""

import pytest

from tests.sql.inbox.inboxes import call, claim, failed, fill, names, processed
from tests.sql.support import refused

ODD = '"my ""Orders"" %s in, Zürich"'


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def commands(db):
    call(db, "tide.inbox_create('commands')")
    return db


def test_the_views_show_what_they_say(commands):
    fill(commands, "a", "b", "c", event_type="t")
    fill(commands, "d")
    processed(commands, "a")
    commands.execute("update tide.commands set retry_count = 3 where event_id = 'b'")
    assert names(commands, "commands_pending") == ["c", "d"]
    assert names(commands, "commands_dlq") == ["b"]
    stats = "select event_type, pending, processed, dead, oldest_pending_at is null, last_processed_at is null"
    assert commands.execute(stats + " from tide.commands_stats order by 1").fetchall() == [
        ("t", 1, 1, 1, False, False), (None, 1, 0, 0, False, True),
    ]  # fmt: skip


def test_views_are_made_as_wanted_and_go_with_the_inbox(db):
    call(db, "tide.inbox_create('plain', with_dead_letter => false, with_stats => false)")
    db.execute("create table tide.plain_dlq (mine int)")
    call(db, "tide.enable_inbox_ordering('plain')")
    views = "select relname from pg_class where relname ~ 'plain' and relkind in ('r', 'v') order by 1"
    assert [row[0] for row in db.execute(views)] == ["next_plain", "plain", "plain_dlq", "plain_pending"]
    call(db, "tide.inbox_drop('plain')")
    assert [row[0] for row in db.execute(views)] == ["plain_dlq"]


def test_names_that_are_taken_are_told(db):
    db.execute("create table tide.commands_stats (mine int)")
    with refused("42P07", 'inbox "commands" needs names that are taken in schema tide: commands_stats'):
        call(db, "tide.inbox_create('commands')")
    db.execute("create table tide.next_orders (mine int)")
    with refused("42P07", "next_orders"):
        call(db, "tide.inbox_create('orders')")
    with refused("42P07", "a relation outbox is there already", hint="enable_inbox_tracking"):
        call(db, "tide.inbox_create('outbox')")
    assert call(db, "count(*) from tide.inbox") == 0


def test_an_inbox_that_others_use_is_not_dropped(commands):
    commands.execute("create view public.mine as select * from tide.commands_pending")
    with refused("2BP01", 'inbox "commands" is used by other objects', hint="Drop them first"):
        call(commands, "tide.inbox_drop('commands')")
    assert call(commands, "count(*) from tide.inbox") == 1


def test_inboxes_can_be_turned_off(commands):
    call(commands, "tide.setting_set('inbox_enabled', 'false')")
    with refused("55000", "inboxes are turned off", hint="tide.setting_set('inbox_enabled', 'true')"):
        call(commands, "tide.inbox_create('other')")
    fill(commands, "a")
    assert claim(commands) == ["a"]


def test_a_name_of_fifty_characters_leaves_room_for_all_that_is_made_of_it(db):
    name = "n" * 50
    call(db, "tide.inbox_create(%s)", name)
    call(db, "tide.enable_inbox_ordering(%s)", name)
    db.execute(f"alter table tide.{name} add priority int")
    call(db, "tide.enable_inbox_priority(%s, 'priority')", name)
    fill(db, "a", inbox=name)
    assert claim(db, inbox=name) == names(db, f"next_{name}") == ["a"]
    call(db, "tide.inbox_drop(%s)", name)
    assert call(db, "count(*) from pg_class where relname ~ 'nnnnnnnnnn'") == 0


# Status and health ---------------------------------------------------------------------------------------------------


def test_the_status_counts_each_kind(commands):
    call(commands, "tide.inbox_create('empty')")
    fill(commands, "new", "held", "waits", "done", "dead")
    processed(commands, "done")
    failed(commands, "waits", retry_seconds=3600)
    commands.execute("update tide.commands set retry_count = 3 where event_id = 'dead'")
    commands.execute("update tide.commands set received_at = now() - interval '100 s' where event_id = 'waits'")
    commands.execute(
        "update tide.commands set claimed_by = 'w', available_at = now() + interval '1 h' where event_id = 'held'"
    )
    rows = commands.execute("select * from tide.inbox_status()").fetchall()
    assert [row[:8] for row in rows] == [
        ("commands", "tide", "commands", 3, 1, 1, 1, 1), ("empty", "tide", "empty", 0, 0, 0, 0, 0),
    ]  # fmt: skip
    assert 100 <= rows[0][8] < 200
    assert (rows[1][8], rows[1][9]) == (None, 0)
    assert rows[0][10] > 0
    assert len(commands.execute("select * from tide.inbox_status('empty')").fetchall()) == 1


def health(db):
    return call(db, "tide.inbox_health('commands')")


def test_health_follows_its_rule(commands):
    fill(commands, *"abcdefghijk")
    assert (health(commands)["status"], health(commands)["reasons"]) == ("healthy", [])
    for age, status in [("299 s", "healthy"), ("301 s", "degraded"), ("59 min", "degraded"), ("61 min", "critical")]:
        commands.execute("update tide.commands set received_at = now() - %s::interval where event_id = 'a'", [age])
        assert health(commands)["status"] == status
    assert "the oldest pending message waits for" in health(commands)["reasons"][0]
    processed(commands, "a")
    assert health(commands)["processed_per_minute"] == 1
    commands.execute("update tide.commands set retry_count = 3 where event_id = 'b'")
    assert health(commands)["status"] == "degraded"
    assert health(commands)["reasons"] == ["1 message died within the last five minutes"]
    commands.execute("update tide.commands set retry_count = 3 where processed_at is null")
    assert (health(commands)["status"], health(commands)["dead"]) == ("critical", 10)
    call(commands, "tide.setting_set('inbox_dlq_alert_max_per_refresh', '11')")
    assert health(commands)["status"] == "degraded"
    commands.execute("update tide.commands set failed_at = now() - interval '6 min'")
    assert (health(commands)["status"], health(commands)["dead"]) == ("healthy", 10)


def test_duplicates_are_counted_and_their_counts_summed_up(commands):
    write = "tide.inbox_write('commands', array['a', 'b'], %s, %s, %s, %s, %s, %s, %s)"
    nothing = [None, None]
    for new, duplicates in [(2, 0), (0, 2), (0, 4)]:
        assert call(commands, write, nothing, nothing, nothing, nothing, ["1", "2"], nothing, nothing) == new
        assert health(commands)["duplicates"] == duplicates
    call(commands, "tide.inbox_retain('commands')")
    assert health(commands)["duplicates"] == 4
    assert call(commands, "count(*) from tide.inbox_duplicates") == 1


# Retention -----------------------------------------------------------------------------------------------------------


def test_what_was_processed_long_ago_is_removed_and_nothing_else(commands):
    fill(commands, "old", "fresh", "dead", "pending", "later")
    processed(commands, "old", "fresh", "later")
    commands.execute("update tide.commands set retry_count = 3 where event_id = 'dead'")
    commands.execute(
        "update tide.commands set failed_at = now() - interval '1 year', received_at = now() - interval '1 year'"
    )
    commands.execute(
        "update tide.commands set processed_at = now() - interval '73 h' where event_id in ('old', 'later')"
    )
    assert call(commands, "tide.inbox_retain('commands', max_rows => 1)") == 1
    assert call(commands, "tide.inbox_retain('commands')") == 1
    assert names(commands, "commands") == ["dead", "fresh", "pending"]
    call(commands, "tide.setting_set('inbox_dlq_retention_hours', '1000')")
    assert call(commands, "tide.inbox_retain('commands')") == 1
    assert names(commands, "commands") == ["fresh", "pending"]


def test_an_inbox_may_have_a_retention_of_its_own(db):
    call(db, "tide.inbox_create('commands', processed_retention_hours => 0, dead_retention_hours => 1)")
    fill(db, "done", "dead")
    db.execute("update tide.commands set retry_count = 3 where event_id = 'dead'")
    processed(db, "done")
    db.execute(
        "update tide.commands set processed_at = processed_at - interval '1 year', failed_at = now() - interval '2 h'"
    )
    assert call(db, "tide.inbox_retain('commands')") == 1
    assert names(db, "commands") == ["done"]


def test_retention_does_not_wait_for_a_message_that_is_replayed(commands, database):
    fill(commands, "a", "b")
    commands.execute("update tide.commands set processed_at = now() - interval '1 year'")
    with database.connect() as other:
        other.execute("begin")
        assert call(other, "tide.replay_inbox_messages('commands', array['a'])") == 1
        assert call(commands, "tide.inbox_retain('commands')") == 1
        other.execute("commit")
    assert claim(commands) == ["a"]


# Tables that were there before ---------------------------------------------------------------------------------------


def test_a_table_becomes_an_inbox_and_an_ordinary_table_again(db):
    db.execute(
        f'create schema app; create table app.{ODD} ("Id %s" uuid primary key, payload jsonb, aggregate_id varchar(50))'
    )
    db.execute(f"insert into app.{ODD} select gen_random_uuid(), '1' from generate_series(1, 3)")
    assert call(db, "tide.enable_inbox_tracking(%s, 'orders', 'Id %%s')", f"app.{ODD}") == "orders"
    got = [row[0] for row in db.execute("select event_id from tide.inbox_claim('orders', 'w')")]
    assert len(got) == 3
    assert processed(db, got[0], worker="w", inbox="orders") == 1
    assert call(db, "tide.inbox_mark_failed('orders', %s, 'no', 'w')", got[1]) == "retry"
    assert call(db, "tide.replay_inbox_messages('orders', %s)", got) == 2
    ids = [got[0], "8a3bd5f0-61a5-4ac1-8e55-e6a1e6d51f1b"]
    write = "tide.inbox_write('orders', %s, %s, %s, %s, %s, %s, %s, %s)"
    assert call(db, write, ids, *([[None] * 2] * 4), ["1", "2"], *([[None] * 2] * 2)) == 1
    call(db, "tide.enable_inbox_ordering('orders')")
    assert call(db, "count(*) from app.next_orders") == 4
    assert call(db, "count(*) from app.orders_pending") == 4
    assert call(db, "tide.inbox_health('orders') ->> 'duplicates'") == "1"
    assert call(db, "pending from tide.inbox_status('orders')") == 4
    assert call(db, "tide.inbox_retain('orders')") == 0
    with refused("55000", "which was there before", hint="tide.disable_inbox_tracking('orders')"):
        call(db, "tide.inbox_drop('orders')")
    call(db, "tide.disable_inbox_tracking('orders')")
    assert call(db, f"count(*) from app.{ODD}") == 4
    left = db.execute("select relname from pg_class where relnamespace = 'app'::regnamespace and relkind in ('i', 'v')")
    assert len(left.fetchall()) == 1
    assert call(db, "count(*) from pg_trigger where not tgisinternal and tgname ~ 'tide_inbox'") == 0
    assert call(db, "tide.enable_inbox_tracking(%s, 'orders', 'Id %%s')", f"app.{ODD}") == "orders"


def test_the_rows_that_are_there_may_count_as_processed(db):
    db.execute("create table public.orders (event_id bigint primary key); insert into public.orders values (1), (2)")
    assert call(db, "tide.enable_inbox_tracking('public.orders', existing_are_processed => true)") == "orders"
    db.execute("insert into public.orders values (3)")
    assert claim(db, inbox="orders") == ["3"]
    assert processed(db, "3", inbox="orders") == 1
    with refused("42710", 'is the inbox "orders" already'):
        call(db, "tide.enable_inbox_tracking('public.orders')")


def test_a_table_that_cannot_be_an_inbox_is_refused_clearly(db, database):
    db.execute("""
        create schema app;
        create table app.no_id (a int);
        create table app.nullable (event_id text unique);
        create table app.deferred (event_id text not null unique deferrable);
        create table app.partial (event_id text not null);
        create unique index on app.partial (event_id) where event_id > 'b';
        create table app.pair (event_id text, n int, primary key (event_id, n));
        create table app.wrong_type (event_id text primary key, payload json);
        create table app.no_default (event_id text primary key, retry_count int not null);
        create table app.has_processed (event_id text primary key, processed_at timestamptz);
        create table app."odd name" (event_id text primary key);
        create table app.parted (event_id text primary key) partition by hash (event_id);
        create view app.view as select 'a' as event_id;
        create temporary table passing (event_id text primary key)""")
    with database.admin() as admin:
        admin.execute("create table app.foreign_owner (event_id text primary key)")
    for table, code, said in [
        ("app.no_id", "42703", "has no column event_id"),
        ("app.nullable", "42P16", "must be unique and not null"),
        ("app.deferred", "42P16", "must be unique and not null"),
        ("app.partial", "42P16", "must be unique and not null"),
        ("app.pair", "42P16", "must be unique and not null"),
        ("app.wrong_type", "42804", "column payload of app.wrong_type is of type json, an inbox needs jsonb"),
        ("app.no_default", "42P16", "column retry_count of app.no_default must be not null and have a default"),
        ('app."odd name"', "42602", "inbox name 'odd name' is not valid"),
        ("app.parted", "42809", "no ordinary table"),
        ("app.view", "42809", "no ordinary table"),
        ("passing", "42809", "no ordinary table"),
        ("tide.pipeline", "42809", "a table of tide-relay"),
        ("app.foreign_owner", "42501", "app.foreign_owner belongs to postgres, not to tide_owner"),
    ]:
        with refused(code, said):
            call(db, "tide.enable_inbox_tracking(%s)", table)
    with refused("22023", "tells already which messages are processed"):
        call(db, "tide.enable_inbox_tracking('app.has_processed', existing_are_processed => true)")
    call(db, "tide.inbox_create('mine')")
    with refused("55000", "was made as an inbox"):
        call(db, "tide.disable_inbox_tracking('mine')")
    assert call(db, "count(*) from tide.inbox") == 1
