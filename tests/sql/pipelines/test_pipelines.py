"""Pipelines in SQL: what is kept, refused, notified."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb

from relay.drains.fence import end
from relay.drains.lease import DrainResult
from relay.drains.outbox import Reader, Settlement
from relay.errors import Fenced
from tests.sql.support import begin, make_outbox, make_pipeline, publish, reader_of, refused, relay_session
from tests.waiting import wait_until

CONFIG = {"sink_type": "memory", "batch_size": 5}


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


def call(connection, statement, *parameters):
    return connection.execute(f"select {statement}", parameters).fetchone()[0]


def set_outbox(connection, *names, config=CONFIG):
    marks = ", ".join(["%s"] * (len(names) + 1))
    call(connection, f"tide.relay_set_outbox({marks})", *names, Jsonb(config))


def groups(connection):
    """(outbox, group, offset) of every group."""
    return connection.execute("""
        select o.name, g.name, g.offset_id from tide.consumer_group g join tide.outbox o using (outbox_id) order by 1, 2
    """).fetchall()


def changes(connection, change):
    """What is heard on tide_relay_config while `change` runs."""
    connection.execute("listen tide_relay_config")
    change()
    return [notification.payload for notification in connection.notifies(timeout=0)]


def test_without_a_group_the_pipelines_name_is_its_group(db):
    set_outbox(db, "p", "orders")
    assert groups(db) == [("orders", "p", 0)]


def test_a_change_without_a_group_keeps_the_group_and_its_offset(db):
    db.execute("select tide.relay_set_outbox('p', 'orders', 'mine', '{\"sink_type\": \"memory\"}')")
    db.execute("update tide.consumer_group set offset_id = 7")
    db.execute("select tide.relay_set_outbox('p', 'orders', '{\"sink_type\": \"stdout\"}')")
    assert db.execute("select name, offset_id from tide.consumer_group").fetchall() == [("mine", 7)]


def test_with_a_group(db):
    set_outbox(db, "p", "orders", "billing")
    assert groups(db) == [("orders", "billing", 0)]


def test_every_parameter_has_a_name(db):
    call(db, "tide.relay_set_outbox(name => 'p', outbox => 'orders', config => '{\"sink_type\": \"x\"}')")
    call(
        db,
        "tide.relay_set_outbox("
        "name => 'q', outbox => 'orders', consumer_group => 'g', config => '{\"sink_type\": \"x\"}')",
    )
    assert groups(db) == [("orders", "g", 0), ("orders", "p", 0)]


def test_a_new_pipeline_is_enabled_asleep_and_starts_at_the_oldest_message(db):
    publish(db)
    set_outbox(db, "p", "orders")
    assert call(db, "tide.relay_get_config('p')") == {
        "name": "p",
        "direction": "forward",
        "outbox": "orders",
        "consumer_group": "p",
        "inbox": None,
        "enabled": True,
        "status": "enabled",
        "reason": None,
        "config": CONFIG,
    }
    assert db.execute("select armed from tide.bell").fetchall() == [(True,)]
    assert db.execute("select epoch, number, lease_until from tide.drain").fetchall() == [(0, 0, None)]


def test_a_change_keeps_the_offset_and_forgets_why_it_was_invalid(db):
    set_outbox(db, "p", "orders")
    db.execute("update tide.consumer_group set offset_id = 7")
    db.execute("update tide.pipeline set invalid_reason = 'bad'")
    assert call(db, "tide.relay_get_config('p') ->> 'status'") == "invalid"
    set_outbox(db, "p", "orders", config={"sink_type": "file"})
    assert groups(db) == [("orders", "p", 7)]
    assert db.execute("select invalid_reason, config from tide.pipeline").fetchall() == [(None, {"sink_type": "file"})]


def test_a_change_of_outbox_or_group_starts_over_and_leaves_no_group_behind(db):
    make_outbox(db, "events")
    set_outbox(db, "p", "orders")
    db.execute("update tide.consumer_group set offset_id = 7")
    set_outbox(db, "p", "events")
    assert groups(db) == [("events", "p", 0)]
    set_outbox(db, "p", "events", "other")
    assert groups(db) == [("events", "other", 0)]
    assert db.execute("select count(*) from tide.bell").fetchone()[0] == 1
    call(db, "tide.outbox_drop('orders')")


def test_a_disabled_pipeline_stays_disabled_when_it_is_changed(db):
    set_outbox(db, "p", "orders")
    call(db, "tide.relay_disable('p')")
    set_outbox(db, "p", "orders")
    assert call(db, "tide.relay_get_config('p') ->> 'status'") == "disabled"


def test_a_group_that_another_pipeline_reads_with_is_refused(db):
    set_outbox(db, "p", "orders", "g")
    with refused("42710", 'consumer group "g" of outbox "orders" belongs to another pipeline', hint="of its own"):
        set_outbox(db, "q", "orders", "g")
    make_outbox(db, "events")
    set_outbox(db, "q", "events", "g")
    assert groups(db) == [("events", "g", 0), ("orders", "g", 0)]


def test_of_two_sessions_that_give_two_pipelines_the_same_group_one_is_refused(database, db):
    with database.connect() as second, ThreadPoolExecutor(1) as pool:
        db.execute("begin")
        set_outbox(db, "p", "orders", "g")
        setting = pool.submit(set_outbox, second, "q", "orders", "g")
        wait_until(lambda: db.execute("select from pg_locks where not granted").rowcount)
        db.execute("commit")
        with refused("42710", "belongs to another pipeline"):
            setting.result()


@pytest.mark.parametrize("config", [[], "text", 1, None, True])
def test_a_configuration_that_is_no_object(db, config):
    with refused("22023", 'configuration of pipeline "p" must be a JSON object', hint="sink_type"):
        set_outbox(db, "p", "orders", config=config)


def test_no_configuration(db):
    with refused("22023", "must be a JSON object, not NULL"):
        call(db, "tide.relay_set_outbox('p', 'orders', null)")


@pytest.mark.parametrize("config", [{}, {"sink_type": None}, {"sink_type": 1}, {"type": "nats"}])
def test_a_configuration_without_sink_type(db, config):
    with refused("22023", 'configuration of pipeline "p" has no sink_type', hint='"sink_type": "nats"'):
        set_outbox(db, "p", "orders", config=config)


@pytest.mark.parametrize("names", [("a b", "g"), ("", "g"), ("p", ""), ("p", "a;b"), (None, "g"), ("p", None)])
def test_bad_names(db, names):
    with refused("42602", "is not valid", hint="1 to 100 letters"):
        set_outbox(db, names[0], "orders", names[1])
    assert groups(db) == []


def test_enable_and_disable(db):
    set_outbox(db, "p", "orders")
    call(db, "tide.relay_disable('p')")
    assert call(db, "tide.relay_get_config('p') -> 'enabled'") is False
    call(db, "tide.relay_enable('p')")
    assert call(db, "tide.relay_get_config('p') -> 'enabled'") is True


def test_every_change_raises_the_revision_also_that_of_a_pipeline_made_again(db):
    revisions = []
    for statement in ("relay_disable('p')", "relay_enable('p')", "relay_delete('p')"):
        set_outbox(db, "p", "orders")
        revisions += db.execute("select revision from tide.pipeline").fetchone()
        call(db, f"tide.{statement}")
    set_outbox(db, "p", "orders")
    revisions += db.execute("select revision from tide.pipeline").fetchone()
    assert revisions == sorted(set(revisions))


def test_the_list_is_sorted_and_shows_the_status(db):
    for name in ("b", "a", "c"):
        set_outbox(db, name, "orders")
    call(db, "tide.relay_disable('a')")
    db.execute("update tide.pipeline set invalid_reason = 'bad url' where name = 'c'")
    rows = db.execute("select name, outbox, consumer_group, enabled, status, reason from tide.relay_list_configs()")
    assert rows.fetchall() == [
        ("a", "orders", "a", False, "disabled", None),
        ("b", "orders", "b", True, "enabled", None),
        ("c", "orders", "c", True, "invalid", "bad url"),
    ]


def test_delete_forgets_the_group(db):
    set_outbox(db, "p", "orders")
    call(db, "tide.relay_delete('p')")
    assert groups(db) == []
    for table in ("pipeline", "drain", "bell", "consumer_group"):
        assert db.execute(f"select from tide.{table}").rowcount == 0
    call(db, "tide.outbox_drop('orders')")


@pytest.mark.parametrize("function", ["relay_enable", "relay_disable", "relay_delete", "relay_get_config"])
def test_a_pipeline_that_does_not_exist(db, function):
    with refused("42704", 'pipeline "missing" does not exist', hint="tide.relay_list_configs()"):
        call(db, f"tide.{function}('missing')")


def test_every_change_is_notified_with_the_name(db):
    assert changes(db, lambda: set_outbox(db, "p", "orders")) == ["p"]
    assert changes(db, lambda: set_outbox(db, "p", "orders", "g")) == ["p"]
    assert changes(db, lambda: call(db, "tide.relay_disable('p')")) == ["p"]
    assert changes(db, lambda: call(db, "tide.relay_enable('p')")) == ["p"]
    assert changes(db, lambda: call(db, "tide.relay_delete('p')")) == ["p"]


def test_a_change_that_is_rolled_back_is_not_notified(db):
    def change():
        db.execute("begin")
        set_outbox(db, "p", "orders")
        db.execute("rollback")

    assert changes(db, change) == []


def test_deleting_while_a_drain_runs_fences_it(database, db):
    make_pipeline(database)
    first = publish(db)
    with reader_of(database) as reader:
        assert reader.read(0).messages
        call(db, "tide.relay_delete('p')")
        with pytest.raises(Fenced, match="'p'"):
            reader.settle(Settlement(first, 1))
        with pytest.raises(Fenced):
            reader.read(first, Settlement(first, 1), "disarm")


def test_deleting_pipeline_and_outbox_while_a_drain_runs_fences_it(database, db):
    make_pipeline(database)
    first = publish(db)
    with reader_of(database) as reader:
        assert reader.read(0).messages
        call(db, "tide.relay_delete('p')")
        call(db, "tide.outbox_drop('orders')")
        with pytest.raises(Fenced):
            reader.read(first, Settlement(first, 1), "disarm")


def test_a_drain_ends_fenced_after_its_pipeline_was_deleted(database, db):
    make_pipeline(database)
    with relay_session(database.url) as session:
        fenced = begin(session)
        call(db, "tide.relay_delete('p')")
        with pytest.raises(Fenced):
            end(session, fenced.lease.drain, DrainResult("idle"))


def test_a_running_drain_learns_of_a_change_with_its_next_settle(database, db):
    make_pipeline(database)
    first = publish(db)
    with relay_session(database.url) as session:
        fenced = begin(session)
        reader = Reader(fenced, 100)
        reader.read(0)
        reader.settle(Settlement(first, 1))
        assert not fenced.config_changed
        set_outbox(db, "p", "orders")
        reader.settle(Settlement(first, 0))
        assert fenced.config_changed


def test_secrets_stay_references_in_the_database(db):
    set_outbox(db, "p", "orders", config={**CONFIG, "password": "${env:PASSWORD}"})
    assert "${env:PASSWORD}" in json.dumps(call(db, "tide.relay_get_config('p')"))
