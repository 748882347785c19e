"""A byte order mark before a text is no part of it, wherever the text comes from."""

import base64
import io
from pathlib import Path

import pytest

from relay import reach
from relay.backends.webhook.config import WebhookSourceConfig
from relay.models import InboxRow, Received
from relay.operations.input_lines import Splitter
from relay.operations.json_lines import read_lines
from relay.operations.pipelines import define
from relay.pipelines.secret_refs import resolve
from relay.reach import Reach
from relay.web.webhooks.identity import event_id
from relay.wire.decode import Decoder

MARK = b"\xef\xbb\xbf"
ENVELOPE = b'{"version":1,"id":"o:1","outbox":"o","message_id":1,"key":null,"headers":{},"payload":[1]}'
EVENT = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1]}'
BASE64 = base64.b64encode(MARK + b"[1]").decode()
ENCODED = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%s"}' % BASE64.encode()
BINARY = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t"}


@pytest.mark.parametrize(
    ("wire_format", "body", "headers"),
    [
        ("raw", b"[1]", {}),
        ("envelope", ENVELOPE, {}),
        ("cloudevents", EVENT, {}),
        ("cloudevents_structured", EVENT, {}),
        ("cloudevents", ENCODED, {}),
        ("cloudevents", b"[1]", BINARY),
        ("debezium", b"[1]", {"id": "1"}),
        ("debezium", b'{"payload":[1],"id":"1"}', {}),
        ("debezium", b'{"schema":{},"payload":[1]}', {"id": "1"}),
    ],
)
def test_of_a_message_in_every_format(wire_format: str, body: bytes, headers: dict[str, str]) -> None:
    decoder = Decoder("p", wire_format=wire_format, aggregate_id="$[0]")
    row = decoder.decode(Received("1", MARK + body, headers))
    assert row == decoder.decode(Received("1", body, headers))
    assert isinstance(row, InboxRow)
    assert row.payload == "[1]"


def test_of_text_that_is_not_json() -> None:
    decoder = Decoder("p", wire_format="cloudevents")
    row = decoder.decode(Received("1", MARK + b"hello", BINARY | {"content-type": "text/plain"}))
    assert isinstance(row, InboxRow)
    assert row.payload == '"hello"'


def test_only_one_and_only_at_the_beginning() -> None:
    row = Decoder("p").decode(Received("1", MARK + MARK + b"1" + MARK, {}))
    assert isinstance(row, InboxRow)
    assert row.payload == "\ufeff1\ufeff"


def test_of_every_line_that_is_published_as_files_that_were_joined_have_one_each() -> None:
    lines = [
        line.payload for line, _ in read_lines(io.BytesIO(MARK + b"1\n" + MARK + b'{"payload": 2}\n' + MARK + b"\n3"))
    ]
    assert lines == ["1", "2", "3"]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("length", [9, 10, 11, 12, 13, 14, 40])
def test_of_every_line_that_is_received_and_it_does_not_count(size: int, length: int) -> None:
    splitter = Splitter(10)
    data = (MARK + b"x" * length + b"\r\n") * 2
    lines = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    assert [line.body for line in lines] == [b"x" * min(length, 11)] * 2


def test_of_a_body_that_says_by_what_it_is_known() -> None:
    config = WebhookSourceConfig(scheme="stripe", signing_secret="s")
    assert event_id(config, {}, MARK + b'{"id": "evt_1"}') == "evt_1"


def test_of_a_configuration() -> None:
    assert define(MARK.decode() + '{"sink_type": "stdout"}') == define('{"sink_type": "stdout"}')


def test_of_a_secret_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(MARK + b"s3cret\n")
    before = reach.in_force()
    reach.put_in_force(Reach(secret_folders=(str(tmp_path),)))
    try:
        assert resolve({"password": f"${{file:{tmp_path}/secret}}"}) == {"password": "s3cret"}
    finally:
        reach.put_in_force(before)
