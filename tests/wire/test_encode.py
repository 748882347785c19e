import json

import pytest

from relay.errors import ConfigError
from relay.models import Message
from relay.wire.encode import FORMATS, Wire
from relay.wire.templates import TEMPLATE_VARIABLES, compile_template
from tests.nesting import TOO_DEEP

NOON = "2025-03-01T12:00:00.000005Z"


def message(number: int = 17, key: str | None = "a", payload: bytes = b'{"n": 1}', headers: bytes = b"{}") -> Message:
    return Message(number, key, payload, headers, NOON)


def wire(template: str = "{outbox}", wire_format: str = "raw", keeps_headers: bool = True) -> Wire:
    return Wire(
        outbox="orders",
        pipeline="to-nats",
        subject_template=template,
        wire_format=wire_format,
        keeps_headers=keeps_headers,
    )


def subject(template: str, of: Message) -> str:
    return wire(template, keeps_headers=False).records([of])[0].subject


class TestSubjects:
    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{outbox}", "orders"),
            ("{stream_table}", "orders"),
            ("{pipeline}.{outbox}", "to-nats.orders"),
            ("{op}", "insert"),
            ("{outbox_id}", "17"),
            ("{refresh_id}", ""),
            ("{type}", ""),
            ("{key}", "a"),
            ("{outbox}.{op}.{key}.x", "orders.insert.a.x"),
            ("{{{outbox}}}", "{orders}"),
            ("plain", "plain"),
            ("", ""),
        ],
    )
    def test_variables_are_filled_in(self, template: str, expected: str) -> None:
        assert subject(template, message()) == expected

    def test_headers_give_op_type_and_refresh_id(self) -> None:
        of = message(headers=b'{"op": "update", "type": "paid", "refresh_id": 4}')
        assert subject("{op}.{type}.{refresh_id}", of) == "update.paid.4"

    def test_a_message_without_a_key_leaves_the_key_empty(self) -> None:
        assert subject("k{key}", message(key=None)) == "k"

    def test_text_from_a_message_is_never_a_template_itself(self) -> None:
        assert subject("{key}", message(key="{op}")) == "{op}"

    @pytest.mark.parametrize("template", ["{tenant}", "{}", "{0}", "{op!r}", "{op:>5}", "{op.x}", "{op[0]}", "{{{x}}}"])
    def test_an_unknown_variable_is_refused_and_the_known_ones_are_listed(self, template: str) -> None:
        with pytest.raises(ConfigError, match="unknown variable") as caught:
            compile_template(template)
        assert all(f"{{{name}}}" in str(caught.value) for name in TEMPLATE_VARIABLES)

    @pytest.mark.parametrize("template", ["{op", "op}", "{{op}", "{", "}", "{op{key}}"])
    def test_unbalanced_braces_are_refused(self, template: str) -> None:
        with pytest.raises(ConfigError, match=r"unbalanced braces|unknown variable"):
            compile_template(template)


class TestRaw:
    def test_the_body_is_the_payload_itself(self) -> None:
        sent = message()
        (record,) = wire().records([sent])
        assert record.body is sent.payload
        assert (record.id, record.dedup_id, record.subject, record.key) == (17, "orders:17", "orders", "a")

    def test_the_headers_say_where_it_came_from(self) -> None:
        (record,) = wire().records([message()])
        assert record.headers == {
            "relay-id": "orders:17",
            "relay-outbox": "orders",
            "relay-created-at": "2025-03-01T12:00:00.000005Z",
        }

    def test_own_headers_travel_and_values_that_are_not_text_become_compact_json(self) -> None:
        headers = '{"a": "ü", "n": 1, "none": null, "list": [1, "é"]}'.encode()
        (record,) = wire().records([message(headers=headers)])
        assert {name: record.headers[name] for name in ("a", "n", "none", "list")} == {
            "a": "ü",
            "n": "1",
            "none": "null",
            "list": '[1,"é"]',
        }

    def test_a_message_cannot_forge_the_relays_own_headers(self) -> None:
        (record,) = wire().records([message(headers=b'{"relay-id": "forged"}')])
        assert record.headers["relay-id"] == "orders:17"

    def test_a_sink_without_headers_gets_none_and_they_are_not_even_parsed(self) -> None:
        (record,) = wire(keeps_headers=False).records([message(headers=b"not json")])
        assert record.headers == {}

    @pytest.mark.parametrize(
        "value", [TOO_DEEP.encode(), b"1" * 5000], ids=["nested deeply", "a number of many digits"]
    )
    def test_headers_that_python_cannot_parse_travel_as_they_are(self, value: bytes) -> None:
        (record,) = wire().records([message(headers=b'{"odd": ' + value + b', "type": "a\\"b"}')])
        assert record.headers["odd"] == value.decode()
        assert record.headers["type"] == 'a"b'

    def test_the_time_of_publishing_is_known_to_the_sink(self) -> None:
        (record,) = wire().records([message()])
        assert record.created_at == NOON

    def test_records_keep_the_order_and_share_nothing(self) -> None:
        records = wire().records([message(1), message(2)])
        assert [record.id for record in records] == [1, 2]
        assert records[0].headers is not records[1].headers


class TestEnvelope:
    def test_it_is_one_json_object_around_the_payload(self) -> None:
        (record,) = wire(wire_format="envelope").records([message(key='a"\n€', headers=b'{"op": "x"}')])
        assert json.loads(record.body) == {
            "version": 1,
            "id": "orders:17",
            "outbox": "orders",
            "message_id": 17,
            "key": 'a"\n€',
            "created_at": "2025-03-01T12:00:00.000005Z",
            "headers": {"op": "x"},
            "payload": {"n": 1},
        }

    def test_it_is_one_line_whatever_the_key(self) -> None:
        (record,) = wire(wire_format="envelope").records([message(key="a\r\nb")])
        assert len(record.body.splitlines()) == 1

    def test_an_absent_key_is_null(self) -> None:
        (record,) = wire(wire_format="envelope").records([message(key=None)])
        assert json.loads(record.body)["key"] is None

    def test_the_outbox_name_is_escaped(self) -> None:
        odd = Wire(outbox='a"%s', pipeline="p", subject_template="", wire_format="envelope", keeps_headers=False)
        body = json.loads(odd.records([message()])[0].body)
        assert (body["id"], body["outbox"]) == ('a"%s:17', 'a"%s')

    def test_the_payloads_bytes_are_not_touched(self) -> None:
        (record,) = wire(wire_format="envelope").records([message(payload=b'{"price": 1.10, "b":  2}')])
        assert b'"payload":{"price": 1.10, "b":  2}}' in record.body

    def test_headers_travel_beside_it_too_where_the_sink_keeps_them(self) -> None:
        (record,) = wire(wire_format="envelope").records([message()])
        assert record.headers["relay-id"] == "orders:17"


def test_an_unknown_wire_format_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=", ".join(FORMATS)):
        wire(wire_format="xml")


class TestNumbersOfHeaders:
    """PostgreSQL keeps every digit, and so does what is made of it."""

    HEADERS = (
        b'{"type": 12345678901234.5678901, "n": 1.10, "deep": {"n": [1.10, "a, b"]}, "small": 0.' + b"0" * 399 + b"1}"
    )

    @pytest.mark.parametrize("wire_format", ["raw", "envelope", "cloudevents", "cloudevents_structured", "debezium"])
    def test_they_keep_their_text(self, wire_format: str) -> None:
        [record] = wire("{type}", wire_format).records([message(headers=self.HEADERS)])
        assert record.subject == "12345678901234.5678901"
        assert record.headers["n"] == "1.10"
        assert record.headers["deep"] == '{"n":[1.10,"a, b"]}'
        assert record.headers["small"] == f"0.{'0' * 399}1"

    @pytest.mark.parametrize("wire_format", ["cloudevents_structured", "debezium"])
    def test_they_keep_it_in_bodies(self, wire_format: str) -> None:
        [record] = wire("x", wire_format, keeps_headers=False).records([message(headers=self.HEADERS)])
        assert b'"12345678901234.5678901"' in record.body
        assert wire_format == "debezium" or b'"n":"1.10"' in record.body
