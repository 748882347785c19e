"""The wire format `debezium`: what a consumer of Debezium's outbox event router sees."""

import json

from relay.models import Record
from tests.wire.test_encode import message, wire


def record(headers: bytes = b"{}", key: str | None = "a", keeps_headers: bool = True) -> Record:
    return wire(wire_format="debezium", keeps_headers=keeps_headers).records([message(headers=headers, key=key)])[0]


def test_the_value_is_the_payload_and_the_id_is_a_header() -> None:
    made = record()
    assert (made.body, made.key, made.headers) == (b'{"n": 1}', "a", {"id": "orders:17"})


def test_the_type_is_the_header_event_type_and_further_fields_are_headers_too() -> None:
    made = record(b'{"type": "paid", "tenant": 4, "id": "forged"}')
    assert made.headers == {"type": "paid", "eventType": "paid", "tenant": "4", "id": "orders:17"}


def test_without_headers_the_fields_stand_in_the_routers_envelope() -> None:
    made = record(b'{"type": "paid"}', keeps_headers=False)
    assert json.loads(made.body) == {
        "payload": {"n": 1},
        "id": "orders:17",
        "eventType": "paid",
        "aggregateType": "orders",
        "aggregateId": "a",
    }
    assert made.headers == {}
    assert made.body.startswith(b'{"payload":{"n": 1},')


def test_a_message_without_type_and_key_has_no_event_type_and_no_aggregate() -> None:
    body = json.loads(record(key=None, keeps_headers=False).body)
    assert "eventType" not in body
    assert body["aggregateId"] is None


ROUTED = b'{"id": "7a4b", "type": "OrderCreated", "aggregate_type": "order", "traceparent": "00-4b"}'


def test_a_row_of_a_routed_table_is_sent_as_the_router_sends_it() -> None:
    made = record(ROUTED)
    assert (made.key, made.body) == ("a", b'{"n": 1}')
    assert made.headers == {"id": "7a4b", "eventType": "OrderCreated", "traceparent": "00-4b"}


def test_a_row_of_a_routed_table_without_headers_has_its_own_id_and_aggregate() -> None:
    body = json.loads(record(ROUTED, keeps_headers=False).body)
    assert body == {"payload": {"n": 1}, "id": "7a4b", "eventType": "OrderCreated", "aggregateType": "order",
                    "aggregateId": "a"}  # fmt: skip


def test_an_id_alone_is_not_that_of_a_row() -> None:
    assert record(b'{"id": "the same for all"}').headers == {"id": "orders:17"}
    assert record(b'{"aggregate_type": "order"}').headers["id"] == "orders:17"


def test_the_topic_is_the_routers() -> None:
    made = wire("outbox.event.{aggregate_type}", wire_format="debezium").records([message(headers=ROUTED)])[0]
    assert made.subject == "outbox.event.order"
