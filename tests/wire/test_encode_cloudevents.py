"""CloudEvents as they are sent, read by the official SDK."""

import json
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, http, kafka
from cloudevents.core.formats.json import JSONFormat

from relay.errors import ConfigError
from relay.models import Message, Record
from relay.wire.encode import Wire
from relay.wire.formats.base import Binding

NOON = "2025-03-01T12:00:00.000005Z"
AWKWARD: list[bytes] = [
    b"{}",
    b"[]",
    b'""',
    b"0",
    b"false",
    b'{"n": 12345678901234567890123, "f": 0.1000000000000000055511151231257827}',
    '{"text": "ümlaut 😀 \\\\u0000 and a tab\\t"}'.encode(),
    b'{"a": ' * 300 + b"1" + b"}" * 300,
    b'{"big": "' + b"x" * 1_000_000 + b'"}',
]
ODD_KEY = 'ü "100%" 😀 a/b,c'


def record(
    binding: Binding | None,
    payload: bytes = b'{"n": 1}',
    headers: dict[str, Any] | None = None,
    key: str | None = "customer-4",
    wire_format: str = "cloudevents",
    keeps_headers: bool = True,
    **templates: str,
) -> Record:
    wire = Wire(
        outbox="orders",
        pipeline="p",
        subject_template="",
        wire_format=wire_format,
        keeps_headers=keeps_headers,
        binding=binding,
        **templates,  # type: ignore[arg-type]
    )
    return wire.records([Message(17, key, payload, json.dumps(headers or {}).encode(), NOON)])[0]


def read(binding: Binding | None, sent: Record) -> BaseCloudEvent:
    """What the SDK makes of it; structured where there is no binding."""
    if binding == "kafka":
        headers = {name: value.encode() for name, value in sent.headers.items()}
        return kafka.from_kafka(kafka.KafkaMessage(headers, sent.key, sent.body), JSONFormat())
    if binding == "amqp":
        properties = {"content-type": sent.headers["content-type"]}
        return amqp.from_amqp(amqp.AMQPMessage(properties, dict(sent.headers), sent.body), JSONFormat())
    if binding is not None:
        attributes = [value for name, value in sent.headers.items() if name.startswith("ce-")]
        assert all(value.isascii() and value.isprintable() for value in attributes)
        return http.from_http(http.HTTPMessage(dict(sent.headers), sent.body), JSONFormat())
    return JSONFormat().read(None, sent.body)


BINDINGS: list[Binding | None] = ["kafka", "http", "nats", "amqp", None]


@pytest.mark.parametrize("binding", BINDINGS)
class TestAnEvent:
    def test_has_its_attributes(self, binding: Binding | None) -> None:
        event = read(binding, record(binding, headers={"type": "order.paid"}))
        assert event.get_id() == "orders:17"
        assert event.get_source() == "/tide-relay/orders"
        assert event.get_type() == "order.paid"
        assert event.get_specversion() == "1.0"
        assert event.get_subject() == "customer-4"
        assert event.get_time() == datetime.fromisoformat(NOON)
        assert event.get_datacontenttype() == "application/json"
        assert event.get_data() == {"n": 1}

    @pytest.mark.parametrize("payload", AWKWARD, ids=lambda payload: payload[:20].decode(errors="replace"))
    def test_carries_any_payload(self, binding: Binding | None, payload: bytes) -> None:
        sent = record(binding, payload)
        assert read(binding, sent).get_data() == json.loads(payload)
        assert payload in sent.body

    def test_carries_any_text_in_its_attributes(self, binding: Binding | None) -> None:
        event = read(binding, record(binding, key=ODD_KEY, headers={"type": "ü %41", "tenant": '日本 "x"'}))
        assert (event.get_subject(), event.get_type()) == (ODD_KEY, "ü %41")
        assert event.get_extension("tenant") == '日本 "x"'

    def test_without_a_key_has_no_subject(self, binding: Binding | None) -> None:
        for key in (None, ""):
            event = read(binding, record(binding, key=key))
            assert event.get_subject() is None

    def test_without_a_type_has_the_outbox_as_its_type(self, binding: Binding | None) -> None:
        assert read(binding, record(binding)).get_type() == "orders"

    def test_has_headers_with_valid_names_as_extensions(self, binding: Binding | None) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        odd = {"Tenant": "x", "a-b": "x", "a" * 21: "x", "none": None, "id": "forged", "time": "forged", "data": "x"}
        event = read(binding, record(binding, headers={"traceparent": trace, "list": [1, "é"], **odd}))
        assert event.get_extension("traceparent") == trace
        assert event.get_extension("list") == '[1,"é"]'
        names = event.get_attributes().keys() - {"partitionkey"}
        assert names == {
            "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "traceparent", "list",
        }  # fmt: skip
        assert event.get_id() == "orders:17"

    def test_has_source_and_type_by_templates(self, binding: Binding | None) -> None:
        sent = record(
            binding,
            headers={"type": "paid"},
            cloudevents_source="//shop.example/{outbox}",
            cloudevents_type="com.example.{type}",
        )
        event = read(binding, sent)
        assert (event.get_source(), event.get_type()) == ("//shop.example/orders", "com.example.paid")


def test_kafka_gets_the_key_as_partition_key() -> None:
    sent = record("kafka", headers={"partitionkey": "forged"})
    assert sent.headers["ce_partitionkey"] == "customer-4"
    assert "ce_partitionkey" not in record("kafka", key=None).headers
    assert "ce-partitionkey" not in record("http").headers
    structured = json.loads(record("kafka", wire_format="cloudevents_structured").body)
    assert structured["partitionkey"] == "customer-4"


@pytest.mark.parametrize(
    ("binding", "prefix"), [("kafka", "ce_"), ("http", "ce-"), ("nats", "ce-"), ("amqp", "cloudEvents_")]
)
def test_each_binding_has_its_prefix(binding: Binding, prefix: str) -> None:
    sent = record(binding)
    assert sent.headers[prefix + "id"] == "orders:17"
    assert sent.headers["content-type"] == "application/json"
    assert prefix + "datacontenttype" not in sent.headers


@pytest.mark.parametrize(("binding", "plain"), [("kafka", True), ("amqp", True), ("http", False), ("nats", False)])
def test_percent_encoding_is_for_http_and_nats(binding: Binding, plain: bool) -> None:
    sent = record(binding, key="é %")
    assert ("é %" if plain else "%C3%A9%20%25") in sent.headers.values()


@pytest.mark.parametrize("binding", ["kafka", "http", "nats", "amqp"])
@pytest.mark.parametrize("wire_format", ["cloudevents", "cloudevents_structured"])
def test_a_messages_own_headers_travel_beside_but_cannot_forge_the_event(binding: Binding, wire_format: str) -> None:
    forged = {"Ce-Id": "x", "ce_id": "x", "CE_SOURCE": "x", "cloudEvents:id": "x", "cloudevents_type": "x"}
    sent = record(binding, headers={"Tenant-Id": "t", "Content-Type": "text/x", **forged}, wire_format=wire_format)
    assert sent.headers["Tenant-Id"] == "t"
    assert "x" not in sent.headers.values()
    assert not [name for name in sent.headers if name.lower() == "content-type" and name != "content-type"]


class TestStructured:
    @pytest.mark.parametrize("payload", AWKWARD, ids=lambda payload: payload[:20].decode(errors="replace"))
    def test_one_object_with_the_payload_untouched(self, payload: bytes) -> None:
        sent = record("http", payload, wire_format="cloudevents_structured")
        assert sent.body.endswith(b',"data":' + payload + b"}")
        assert read(None, sent).get_data() == json.loads(payload)
        assert sent.headers["content-type"] == "application/cloudevents+json"

    def test_is_what_a_sink_without_headers_gets(self) -> None:
        sent = record("kafka", keeps_headers=False)
        assert sent.headers == {}
        assert read(None, sent).get_id() == "orders:17"

    def test_is_what_a_sink_without_a_binding_gets(self) -> None:
        sent = record(None)
        assert sent.headers["content-type"] == "application/cloudevents+json"
        assert read(None, sent).get_id() == "orders:17"

    def test_small_numbers_and_truth_values_keep_their_types_and_others_become_text(self) -> None:
        headers = {"n": -4, "yes": True, "big": 2**31, "f": 1.5, "least": -(2**31)}
        event = json.loads(record(None, headers=headers).body)
        assert {name: event[name] for name in headers} == {
            "n": -4, "yes": True, "big": "2147483648", "f": "1.5", "least": -(2**31),
        }  # fmt: skip


def test_a_wrong_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown variable"):
        record("http", cloudevents_type="{colour}")
