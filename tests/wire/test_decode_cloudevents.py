"""CloudEvents that arrive: written by the official SDK, by us, and by hand."""

import base64
import json
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from cloudevents.core.bindings import amqp, http, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from relay.models import Failure, InboxRow, Received
from relay.wire.formats.base import Binding
from tests.wire.test_decode import AWKWARD, TRACE, received, refusal, row
from tests.wire.test_encode_cloudevents import BINDINGS, ODD_KEY, record

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
Mode = Literal["binary", "structured"]


def event(data: Any = None, **attributes: Any) -> CloudEvent:
    fields = {"id": "e-1", "source": "/shop", "type": "order.paid", "time": NOON, "subject": "o 1 é"}
    return CloudEvent(fields | {"datacontenttype": "application/json"} | attributes, data)


def by_sdk(transport: str, mode: Mode, of: CloudEvent) -> Received:
    """What a source receives of an event that the SDK sent."""
    form = JSONFormat()
    if transport == "http":
        sent = http.to_binary(of, form) if mode == "binary" else http.to_structured(of, form)
        return received(sent.body, sent.headers, key=None)
    if transport == "kafka":
        record = kafka.to_binary(of, form) if mode == "binary" else kafka.to_structured(of, form)
        return received(record.value, {name: value.decode() for name, value in record.headers.items()}, key=None)
    if transport == "rabbitmq":
        message = rabbitmq.to_binary(of, form) if mode == "binary" else rabbitmq.to_structured(of, form)
        return received(message.body, message.headers | {"content-type": message.content_type or ""}, key=None)
    one = amqp.to_binary(of, form) if mode == "binary" else amqp.to_structured(of, form)
    headers = {name: str(value) for name, value in (one.application_properties | one.properties).items()}
    return received(one.application_data, headers, key=None)


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("transport", ["http", "kafka", "amqp"])
class TestTheSdksEvents:
    def test_id_type_source_subject_and_data_are_found(self, transport: str, mode: Mode) -> None:
        made = row(by_sdk(transport, mode, event({"n": 1.5, "é": "😀"})), wire_format="cloudevents")
        assert made[:5] == ("e-1", "order.paid", "/shop", "o 1 é", None)
        assert json.loads(made.payload) == {"n": 1.5, "é": "😀"}

    def test_other_attributes_are_headers(self, transport: str, mode: Mode) -> None:
        of = event({}, traceparent=f"00-{TRACE}-b7ad6b7169203331-01", tenant="ü", sequence="0042")
        made = row(by_sdk(transport, mode, of), wire_format="cloudevents")
        headers = json.loads(made.headers)
        assert (headers["tenant"], headers["subject"]) == ("ü", "o 1 é")
        # AMQP has a type of its own for times.
        assert headers["time"].startswith("2025-03-01" if (transport, mode) != ("amqp", "binary") else "17408304")
        assert made.trace_id == TRACE
        assert made.event_sequence == 42
        assert not headers.keys() & {"id", "type", "source", "specversion"}

    def test_text_that_is_not_json_is_stored_as_a_string(self, transport: str, mode: Mode) -> None:
        made = row(by_sdk(transport, mode, event("<a>é</a>", datacontenttype="text/xml")), wire_format="cloudevents")
        assert json.loads(made.payload) == "<a>é</a>"

    def test_an_event_without_data_is_null(self, transport: str, mode: Mode) -> None:
        assert row(by_sdk(transport, mode, event(None)), wire_format="cloudevents").payload == "null"


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", "application/octet-stream"])
def test_no_data_is_null_whatever_its_type(kind: str) -> None:
    headers = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t", "content-type": kind}
    assert row(received(b"", headers), wire_format="cloudevents").payload == "null"


def test_rabbitmqs_own_binding_is_read_too() -> None:
    made = row(by_sdk("rabbitmq", "binary", event({"n": 1}, subject="s")), wire_format="cloudevents")
    assert made[:4] == ("e-1", "order.paid", "/shop", "s")


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("wire_format", ["cloudevents", "cloudevents_structured"])
class TestOurOwnEvents:
    def test_come_back_untouched(self, binding: Binding | None, wire_format: str) -> None:
        for payload in AWKWARD:
            sent = record(binding, payload, {"type": "paid", "tenant": 'ü %41 "x"'}, ODD_KEY, wire_format)
            made = row(Received("s", sent.body, sent.headers), wire_format="cloudevents")
            assert made[:5] == ("orders:17", "paid", "/tide-relay/orders", ODD_KEY, None)
            assert made.payload == payload.decode()
            assert json.loads(made.headers)["tenant"] == 'ü %41 "x"'

    def test_come_back_from_a_transport_that_lowers_names(self, binding: Binding | None, wire_format: str) -> None:
        sent = record(binding, wire_format=wire_format)
        lowered = {name.lower(): value for name, value in sent.headers.items()}
        assert row(Received("s", sent.body, lowered), wire_format=wire_format).event_id == "orders:17"

    def test_come_back_from_a_transport_that_drops_headers(self, binding: Binding | None, wire_format: str) -> None:
        sent = record(binding, wire_format=wire_format, keeps_headers=False)
        assert row(Received("s", sent.body, {}), wire_format=wire_format).event_id == "orders:17"


STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
FIELDS = '"specversion":"1.0","id":"e-1","source":"/s","type":"t"'


def structured(more: str = "", headers: dict[str, str] | None = None) -> Received:
    return received(f"{{{FIELDS}{more}}}".encode(), STRUCTURED if headers is None else headers, key=None)


def test_extensions_of_a_structured_event_keep_their_types() -> None:
    made = row(structured(',"n":4,"yes":true,"none":null'), wire_format="cloudevents")
    assert json.loads(made.headers) == {"n": 4, "yes": True} | STRUCTURED


def test_the_key_of_the_transport_goes_before_partitionkey_and_that_before_subject() -> None:
    both = structured(',"partitionkey":"p","subject":"s"')
    assert row(both._replace(key="k"), wire_format="cloudevents").aggregate_id == "k"
    assert row(both, wire_format="cloudevents").aggregate_id == "p"
    assert row(structured(',"subject":"s"'), wire_format="cloudevents").aggregate_id == "s"


def test_source_and_id_together_can_be_the_event_id() -> None:
    assert row(structured(), wire_format="cloudevents", event_id="{source}/{id}").event_id == "/s/e-1"


@pytest.mark.parametrize(
    ("data", "kind", "payload"),
    [
        (b'{"a":  1.10}', ',"datacontenttype":"application/json"', '{"a":  1.10}'),
        (b'{"a":  1}', "", '{"a":  1}'),
        (b'{"a":  1}', ',"datacontenttype":"application/vnd.x+json; charset=utf-8"', '{"a":  1}'),
        ("é".encode(), ',"datacontenttype":"text/plain"', '"é"'),
        (b"", "", "null"),
    ],
)
def test_text_in_base64_is_data(data: bytes, kind: str, payload: str) -> None:
    encoded = base64.b64encode(data).decode()
    assert row(structured(f'{kind},"data_base64":"{encoded}"'), wire_format="cloudevents").payload == payload


@pytest.mark.parametrize(
    ("of", "code"),
    [
        (structured(',"data_base64":"/w=="'), "not_utf8"),
        (structured(',"data_base64":"?"'), "bad_cloudevent"),
        (structured(',"data_base64":"é"'), "bad_cloudevent"),
        (received(b'[{"id":1}]', {"content-type": "application/cloudevents-batch+json"}), "cloudevents_batch"),
        (received(b' [{"id":1}]'), "cloudevents_batch"),
        (received(b"x", {"Content-Type": "application/cloudevents+avro"}), "bad_cloudevent"),
        (received(b'{"n": 1}'), "bad_cloudevent"),
        (received(b"hello"), "bad_cloudevent"),
        (received(b"{}", {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s"}), "bad_cloudevent"),
        (received(b"{}", {"ce_specversion": "0.3", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}), "bad_cloudevent"),
        (received(b"{}", {"ce_specversion": "1.0", "ce_id": "", "ce_source": "/", "ce_type": "t"}), "bad_cloudevent"),
        (structured()._replace(body=b'{"specversion":"1.0","id":["x"],"source":"/s","type":"t"}'), "bad_cloudevent"),
    ],
)
def test_what_is_no_single_event_is_refused(of: Received, code: str) -> None:
    failure: Failure = refusal(of, wire_format="cloudevents")
    assert failure.code == code
    assert failure.reason


def test_the_refusal_names_what_is_missing() -> None:
    of = received(b"{}", {"ce-specversion": "1.0", "ce-source": "/s"})
    assert refusal(of, wire_format="cloudevents").reason == "the event has no id, type"


def test_a_structured_event_is_read_from_the_body_whatever_the_headers_say() -> None:
    of = structured(headers=STRUCTURED | {"ce-specversion": "1.0", "ce-id": "other"})
    made: InboxRow = row(of, wire_format="cloudevents")
    assert made.event_id == "e-1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a%20b", "a b"), ('"a \\"b\\" \\\\"', 'a "b" \\'), ("100%", "100%"), ('"', '"'), ("%C3%A9", "é")],
)
def test_header_values_of_http_are_decoded(value: str, expected: str) -> None:
    headers = {"CE-Specversion": "1.0", "CE-Id": "1", "CE-Source": "/s", "CE-Type": "t", "CE-Subject": value}
    assert row(received(b"{}", headers, key=None), wire_format="cloudevents").aggregate_id == expected


def test_a_binary_event_that_is_not_json_is_text() -> None:
    headers = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t", "content-type": "text/plain"}
    assert row(received(b"{}", headers), wire_format="cloudevents").payload == '"{}"'
