"""Messages of Debezium's outbox event router, as its converters write them."""

import json

import pytest

from relay.models import Message, Received
from relay.wire.encode import Wire
from tests.wire.test_decode import AWKWARD, NOON, received, refusal, row

ID = "4d47e190-0402-4048-bc2c-89dd54343cdc"


def test_the_value_is_the_payload_and_headers_say_the_rest() -> None:
    headers = {"id": ID, "eventType": "OrderCreated", "tenant": "x"}
    made = row(received(b'{"id":  1}', headers, subject="outbox.event.order"), wire_format="debezium")
    assert made[:6] == (ID, "OrderCreated", "outbox.event.order", "k", None, '{"id":  1}')
    assert json.loads(made.headers) == headers


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("1", "1"),
        ('"1"', "1"),
        ('{"schema":{"type":"string","optional":false},"payload":"1"}', "1"),
        ('{"schema":null,"payload":7}', "7"),
        ('{"a":1}', '{"a":1}'),
        ('"open', '"open'),
        ('{"open', '{"open'),
        ("", ""),
        (None, None),
    ],
)
def test_keys_and_headers_in_quotes_are_unwrapped(key: str | None, plain: str | None) -> None:
    made = row(received(headers={"id": ID, "eventType": key or "x"}, key=key), wire_format="debezium")
    assert (made.aggregate_id, made.event_type) == (plain, plain or "x")
    assert row(received(headers={"id": f'"{ID}"'}), wire_format="debezium").event_id == ID


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ('{"schema":{"type":"struct"},"payload":{"id": 1.10}}', '{"id": 1.10}'),
        ('{"schema":{"type":"string","name":"io.debezium.data.Json"},"payload":"{\\"id\\": 1.10}"}', '{"id": 1.10}'),
        ('"{\\"id\\": 1.10}"', '{"id": 1.10}'),
        (' "[1, 2]" ', "[1, 2]"),
        ('{"schema":null,"payload":null}', "null"),
        ("", "null"),
        ('"just text"', '"just text"'),
        ('"{not json"', '"{not json"'),
        ('"{} {}"', '"{} {}"'),
        ('"1"', '"1"'),
        ('"open', '"open'),
        ("not json", "not json"),
        ('{"schema":1,"payload":2,"more":3}', '{"schema":1,"payload":2,"more":3}'),
        ('{"payload":2}', '{"payload":2}'),
    ],
)
def test_schemas_and_json_inside_a_string_are_unwrapped(value: str, payload: str) -> None:
    assert row(received(value.encode(), {"id": ID}), wire_format="debezium").payload == payload


def test_an_envelope_has_its_fields_beside_the_payload() -> None:
    body = f'{{"payload":{{"n": 1.10}},"id":"{ID}","eventType":"Created","aggregateType":"order","aggregateId":"7"}}'
    made = row(received(body.encode(), key=None), wire_format="debezium")
    assert made == (ID, "Created", "order", "7", None, '{"n": 1.10}', "{}", None)


def test_an_envelope_with_a_schema_and_the_type_under_its_first_name() -> None:
    body = b'{"schema":{},"payload":{"payload":"{\\"n\\":1}","type":"Created"}}'
    made = row(received(body), wire_format="debezium")
    assert made[:6] == ("orders/3/1042", "Created", "orders", "k", None, '{"n":1}')


@pytest.mark.parametrize("body", [b'{"n": 1}', b"[1]", b"1", b"hello", b"", b'"{}"', b"{"])
def test_without_header_id_and_envelope_it_is_refused(body: bytes) -> None:
    assert refusal(received(body), wire_format="debezium").code == "bad_debezium"


@pytest.mark.parametrize("keeps_headers", [True, False])
@pytest.mark.parametrize("payload", AWKWARD, ids=lambda payload: payload[:16].decode())
def test_our_own_come_back_untouched(payload: bytes, keeps_headers: bool) -> None:
    wire = Wire(outbox="orders", pipeline="p", subject_template="", wire_format="debezium", keeps_headers=keeps_headers)
    (record,) = wire.records([Message(17, "k", payload, b'{"type": "paid"}', NOON)])
    sent = Received("s", record.body, record.headers, record.key if keeps_headers else None)
    made = row(sent, wire_format="debezium")
    assert (made.event_id, made.event_type, made.aggregate_id) == ("orders:17", "paid", "k")
    assert made.payload == payload.decode()
