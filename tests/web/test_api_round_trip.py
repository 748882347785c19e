"""What the webhook sink sends, `relay api` receives: every message once, equal, and in order."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.sink import WebhookSink
from relay.models import Message
from relay.wire.encode import Wire
from tests.paths import DATA
from tests.services.postgres import Database, PostgresServer
from tests.web.api import SECRET, ApiProcess, make_hook, running_api

AWKWARD = [
    "{}", "null", "[" * 500 + "]" * 500, json.dumps("x" * 1_000_000), '"🚀 \\\\u0000"', "12345678901234567890123",
    '{"exact": 0.10, "nested": {"payload": 1}}', '""',
]  # fmt: skip
HEADERS = {"name": "Zoë 日本", "n": 1, "type": "order.paid", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with running_api(database, tmp_path_factory.mktemp("api")) as running:
        yield running


def messages() -> list[Message]:
    events = (DATA / "github-events.jsonl").read_text("utf-8").splitlines()
    headers = json.dumps(HEADERS, ensure_ascii=False).encode()
    moment = "2025-03-01T12:00:00.000000Z"
    return [
        Message(number, None, payload.encode(), headers, moment)
        for number, payload in enumerate([*AWKWARD, *events], 1)
    ]


@pytest.mark.parametrize("wire_format", ["raw", "envelope", "cloudevents", "cloudevents_structured"])
def test_every_message_arrives_once_equal_and_in_order(
    api: ApiProcess, database: Database, wire_format: str, tmp_path: Path
) -> None:
    receiving = wire_format.removesuffix("_structured")
    name = make_hook(database, f"in-{wire_format}", max_body_bytes=2_000_000, wire_format=receiving)
    api.wait_for(name)
    features = WebhookSink.features
    wire = Wire(
        outbox="orders", pipeline="p", subject_template="{outbox}", wire_format=wire_format,
        keeps_headers=features.keeps_headers, binding=features.cloudevents_binding,
    )  # fmt: skip
    sent = messages()
    url = f"http://127.0.0.1:{api.port}/hooks/{name}"
    keys = {"url": url, "allow_http": True, "allow_private_network": True, "signing_secret": SECRET}
    sink = WebhookSink(WebhookSinkConfig.model_validate(keys | {"timeout_ms": 60_000}), "p")
    sink.open()
    try:
        for _ in range(2):
            assert sink.publish(wire.records(sent)) == []
    finally:
        sink.close()
    with database.connect() as connection:
        rows = connection.execute(
            f'select event_id, payload::text, headers, event_type, trace_id from tide."{name}" order by inbox_seq'
        ).fetchall()
    with database.connect() as connection:
        texts = [message.payload.decode() for message in sent]
        expected = [
            text
            for (text,) in connection.execute("select t::jsonb::text from unnest(%s::text[]) t", [texts]).fetchall()
        ]
    assert [payload for _, payload, *_ in rows] == expected
    assert rows[0][0].endswith("orders:1")
    assert rows[0][2]["name"] == "Zoë 日本" or wire_format.startswith("cloudevents")
    assert {(event_type, trace) for *_, event_type, trace in rows} == {("order.paid", "ab" * 16)}
