"""Publishing: what is stored, what is refused."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import make_outbox, make_pipeline, publish, reader_of, refused

LIMIT_BYTES = 1000


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, max_payload_bytes=LIMIT_BYTES)
        yield connection


def call(connection, statement, *parameters):
    return connection.execute(f"select {statement}", parameters).fetchone()[0]


def stored(connection):
    return connection.execute("select id, key, headers, payload from tide.message order by id").fetchall()


def test_a_message_is_its_payload_its_headers_and_its_key(db):
    id_ = call(
        db,
        "tide.outbox_publish("
        "outbox => 'orders', payload => '{\"n\": 1}', headers => '{\"type\": \"made\"}', key => 'k')",
    )
    assert stored(db) == [(id_, "k", {"type": "made"}, {"n": 1})]


def test_headers_and_key_may_be_left_out(db):
    call(db, "tide.outbox_publish('orders', '[1, \"two\"]')")
    assert stored(db) == [(1, None, {}, [1, "two"])]


def test_nulls_are_stored_as_the_nearest_thing(db):
    call(db, "tide.outbox_publish('orders', null, null, null)")
    call(db, "tide.outbox_publish('orders', 'null')")
    call(db, "tide.outbox_publish_many('orders', array[null, '1']::jsonb[], null, array[null, '{}']::jsonb[])")
    assert stored(db) == [(1, None, {}, None), (2, None, {}, None), (3, None, {}, None), (4, None, {}, 1)]
    assert db.execute("select payload::text from tide.message where id = 1").fetchone()[0] == "null"


def test_what_is_read_is_what_was_published(database):
    make_pipeline(database)
    payload = {"text": "smørrebrød 🦀", "number": 12345678901234567890, "nested": [[{}], None, 1.50]}
    with database.connect() as publisher, reader_of(database) as reader:
        publisher.execute(
            "select tide.outbox_publish('orders', %s, %s, %s)", [Jsonb(payload), Jsonb({"å": "ö"}), "clé"]
        )
        [message] = reader.read(0).messages
        publish(publisher)
        [second] = reader.read(message.id).messages
    assert json.loads(message.payload) == payload
    assert (message.id, message.key, json.loads(message.headers)) == (1, "clé", {"å": "ö"})
    assert abs(datetime.fromisoformat(message.created_at) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (second.key, second.headers, second.payload) == (None, b"{}", b"null")


def test_times_are_those_of_the_publish_not_of_the_transaction(db):
    db.execute("begin")
    publish(db)
    db.execute("select pg_sleep(0.002)")
    publish(db)
    db.execute("commit")
    first, second = (at for (at,) in db.execute("select created_at from tide.message order by id"))
    assert second > first


def test_many_messages_have_ids_in_the_order_of_the_array(db):
    payloads = [Jsonb(number) for number in range(500)]
    ids = call(db, "tide.outbox_publish_many('orders', %s)", payloads)
    assert ids == list(range(1, 501))
    assert [(id_, payload) for id_, _, _, payload in stored(db)] == list(zip(ids, range(500), strict=True))


def test_many_messages_with_keys_and_headers(db):
    ids = call(
        db,
        "tide.outbox_publish_many(outbox => 'orders', payloads => '{1,2}', keys => '{a,null}',"
        " headers => array['{\"n\": 1}', '{}']::jsonb[])",
    )
    assert stored(db) == [(ids[0], "a", {"n": 1}, 1), (ids[1], None, {}, 2)]


@pytest.mark.parametrize("payloads", ["'{}'", "null"])
def test_no_messages_are_no_ids(db, payloads):
    assert call(db, f"tide.outbox_publish_many('orders', {payloads})") == []
    assert stored(db) == []


@pytest.mark.parametrize("arrays", ["'{a}', null", "null, '{\"{}\"}'", "'{a,b,c}', '{\"{}\",\"{}\"}'", "'{}', null"])
def test_arrays_of_different_lengths(db, arrays):
    with refused("2202E", "got 2 payloads", hint="Nothing was published"):
        call(db, f"tide.outbox_publish_many('orders', '{{1,2}}', {arrays})")
    assert stored(db) == []


@pytest.mark.parametrize("headers", ['"text"', "[]", "1", "null", "true"])
def test_headers_that_are_no_object(db, headers):
    with refused("22023", "headers must be a JSON object, not", hint="Nothing was published"):
        call(db, "tide.outbox_publish('orders', '1', %s)", headers)
    with refused("22023", "message 2 of the array: headers must be a JSON object"):
        call(db, "tide.outbox_publish_many('orders', '{1,2}', null, array['{}', %s]::jsonb[])", headers)
    assert stored(db) == []


@pytest.mark.parametrize(
    ("payload", "headers", "key", "other_bytes"),
    [
        ("to_jsonb(repeat('x', %s))", "'{}'", "null", len('""') + len("{}")),
        ("'1'", "jsonb_build_object('h', repeat('x', %s))", "null", len("1") + len('{"h": ""}')),
        ("null", "jsonb_build_object('h', repeat('x', %s))", "null", len("null") + len('{"h": ""}')),
        ("'1'", "'{}'", "repeat('x', %s)", len("1") + len("{}")),
    ],
    ids=["payload", "headers", "headers of a null payload", "key"],
)
def test_the_limit_holds_for_payload_headers_and_key_together(db, payload, headers, key, other_bytes):
    fitting = LIMIT_BYTES - other_bytes
    one = f"tide.outbox_publish('orders', {payload}, {headers}, {key})"
    arrays = f"array['1', {payload}]::jsonb[], array[null, {key}], array['{{}}', {headers}]::jsonb[]"
    many = f"tide.outbox_publish_many('orders', {arrays})"
    call(db, one, fitting)
    call(db, many, fitting)
    assert db.execute("select size from tide.message order by id").fetchall() == [(1000,), (3,), (1000,)]
    hint = "raise max_payload_bytes in tide.outbox"
    with refused("54000", 'the message for outbox "orders" has 1001 bytes, its limit is 1000', hint=hint):
        call(db, one, fitting + 1)
    with refused("54000", "message 2 of the array: the message for", "1001 bytes", hint=hint):
        call(db, many, fitting + 1)
    assert db.execute("select count(*) from tide.message").fetchone()[0] == 3


def test_the_limit_of_an_outbox_can_be_changed(db):
    db.execute("update tide.outbox set max_payload_bytes = 5")
    with refused("54000", "limit is 5"):
        call(db, "tide.outbox_publish('orders', '1234')")
    db.execute("update tide.outbox set max_payload_bytes = 6")
    call(db, "tide.outbox_publish('orders', '1234')")


def test_the_default_limit_is_one_mebibyte(database):
    with database.connect() as connection:
        make_outbox(connection)
        fitting = 1048576 - len('""') - len("{}")
        call(connection, "tide.outbox_publish('orders', to_jsonb(repeat('x', %s)))", fitting)
        with refused("54000", "has 1048577 bytes"):
            call(connection, "tide.outbox_publish('orders', to_jsonb(repeat('x', %s)))", fitting + 1)


def test_a_refused_message_does_not_break_what_a_savepoint_keeps(db):
    with db.transaction():
        publish(db)
        with refused("54000"), db.transaction():
            publish(db, payload="x" * LIMIT_BYTES)
        publish(db)
    assert len(stored(db)) == 2


def test_what_is_far_too_large_is_refused_before_any_work(db):
    """Its size as text, which takes seconds for 200 MB, is not even known."""
    large = "jsonb_build_object('n', repeat('x', 9000000))"
    for call in (f"('orders', {large})", f"('orders', '1', {large})"):
        with refused("54000", "has more than 1000 bytes, its limit is 1000", hint="raise max_payload_bytes"):
            db.execute(f"select tide.outbox_publish{call}")
    with refused("54000", "message 2 of the array: the message for", "has more than 1000 bytes"):
        db.execute(f"select tide.outbox_publish_many('orders', array['1', {large}])")
    with refused("54000", "1000001 messages", hint="in several calls"):
        db.execute("select tide.outbox_publish_many('orders', array_fill(null::jsonb, array[1000001]))")
    make_outbox(db, "off")
    db.execute("select tide.outbox_disable('off')")
    with refused("55000", "is disabled"):
        db.execute(f"select tide.outbox_publish('off', {large})")
    assert db.execute("select count(*) from tide.message").fetchone() == (0,)


@pytest.mark.parametrize("many", ["0", "[]", '{"": 1}', "true", '"a"', "-1e-3"])
def test_no_message_is_refused_for_how_it_is_stored(db, many):
    """As stored, JSON can take several times the bytes of its text."""
    make_outbox(db, "wide", max_payload_bytes=20_000_000)
    make_outbox(db, "narrow", max_payload_bytes=3_000_000)
    payload = f"(select jsonb_agg('{many}'::jsonb) from generate_series(1, 800000 / octet_length('{many}')) i)"
    assert db.execute(f"select pg_column_size(p.v) < 7 * octet_length(p.v::text) from {payload} p (v)").fetchone() == (
        True,
    )
    for outbox in ("wide", "narrow"):
        assert db.execute(f"select tide.outbox_publish('{outbox}', {payload})").fetchone()
        assert db.execute(f"select tide.outbox_publish_many('{outbox}', array[{payload}])").fetchone()


def test_batches_are_bounded_by_bytes_and_take_a_larger_message_alone(database, monkeypatch):
    make_pipeline(database)
    monkeypatch.setattr("relay.drains.messages.MAX_BATCH_BYTES", 1000)
    with database.connect() as publisher, reader_of(database) as reader:
        for length in (300, 300, 300, 300, 5000, 10):
            publish(publisher, payload="x" * length)
        batches, after = [], 0
        while messages := reader.read(after).messages:
            after = messages[-1].id
            batches.append([message.id for message in messages])
    assert batches == [[1, 2, 3, 4], [5], [6]]
