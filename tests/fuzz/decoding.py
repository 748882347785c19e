"""Whatever arrives is a row, or is refused with a code that is documented; soon, and never by a bug.

And what is sent in any wire format is understood by the way back.
"""

import contextlib
import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from relay.errors import ConfigError
from relay.models import Failure, InboxRow, Message, Received
from relay.process.unforeseen import INTERNAL
from relay.wire.decode import CODES, FORMATS, LONGEST_EVENT_ID, Decoder
from relay.wire.encode import Wire
from relay.wire.formats.base import Binding
from tests.fuzz.generate import hard_json, json_text, mutated, swarm, text, value
from tests.fuzz.running import main

MOST_BYTES = 128 * 1024
LONGEST_SECONDS = 2.0
"""Of the processor, for one message of that size: a hundred times what it takes, far below what its square takes."""

FIELDS = (
    "{id}", "{key}", "{subject}-{type}", "{header.type}", "{headers[ce_id]}", "$.id", "$.a.b", "$[0]", '$["a"][0].id',
    "{header.Traceparent}", "{pipeline}/{source}",
)  # fmt: skip
NAMES = (
    "id", "type", "source", "specversion", "data", "data_base64", "datacontenttype", "subject", "payload", "version",
    "message_id", "outbox", "headers", "key", "schema", "aggregateId", "eventType", "sequence", "partitionkey", "time",
)  # fmt: skip
HEADERS = (
    "ce_id", "ce-id", "ce_source", "ce-source", "ce_type", "ce-type", "ce_specversion", "ce-specversion", "type", "id",
    "cloudEvents_id", "cloudEvents:specversion", "cloudEvents_specversion", "content-type", "Content-Type", "eventType",
    "traceparent", "aggregateType", "ce-sequence",
)  # fmt: skip
VALUES = (
    "1.0", "1", "application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "%ff%00", '"a\\"', '{"schema":1,"payload":"x"}', "007",
    "٣",
)  # fmt: skip


class Decoding:
    """One case after the other. `store` gets rows of every so many cases, to show that PostgreSQL can judge them."""

    def __init__(self, store: Callable[[Sequence[InboxRow]], None] = lambda _: None) -> None:
        self._store = store
        self._rows: list[InboxRow] = []

    def __call__(self, rng: random.Random) -> None:
        if rng.random() < 0.2:
            returned(rng)
            return
        if rng.random() < 0.1:
            configured(rng)
            return
        row = decoded(rng)
        if row is not None:
            self._rows.append(row)
        if len(self._rows) >= 200:
            self.flush()

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        self._store(rows)


def decoded(rng: random.Random) -> InboxRow | None:
    """The row of a message of any sender."""
    received = message(rng)
    decoder = Decoder(
        "p",
        wire_format=rng.choice(tuple(FORMATS)),
        event_id=rng.choice((None, None, *FIELDS)),
        event_type=rng.choice((None, *FIELDS)),
        aggregate_id=rng.choice((None, *FIELDS)),
    )
    began = time.thread_time()
    row = decoder.decode(received)
    took = time.thread_time() - began
    assert took < LONGEST_SECONDS, f"{took:.1f} s for {len(received.body)} bytes"
    if isinstance(row, Failure):
        assert row.code in CODES, row
        assert row.code != INTERNAL, row.reason
        assert row.permanent
        assert row.reason
        return None
    assert 0 < len(row.event_id) <= LONGEST_EVENT_ID
    assert "\0" not in row.event_id
    assert row.event_sequence is None or 0 <= row.event_sequence < 2**63
    assert row.trace_id is None or len(row.trace_id) == 32
    assert row.payload
    if len(row.headers) < 1000:  # Python cannot parse all of it
        assert isinstance(json.loads(row.headers), dict), row.headers
    return row


def returned(rng: random.Random) -> None:
    """A message that is sent comes back as what it was."""
    wire_format = rng.choice(tuple(FORMATS))
    keeps_headers = rng.random() < 0.5
    if wire_format == "raw":
        keeps_headers = True
    bindings: tuple[Binding | None, ...] = (None, "kafka", "http", "nats", "amqp")
    binding = rng.choice(bindings) if keeps_headers else None
    payload = json.dumps(value(rng), ensure_ascii=False)
    headers = {text(rng, 3) or "h": value(rng, 1) for _ in range(rng.randrange(4))}
    own = json.dumps(headers, ensure_ascii=False)
    created = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(microseconds=rng.randrange(10**15))
    key = rng.choice((None, "", "k", text(rng)))
    sent = Message(rng.randrange(1, 2**63), key, payload.encode(), own.encode(), f"{created:%Y-%m-%dT%H:%M:%S.%f}Z")
    wire = Wire(
        outbox="orders", pipeline="p", subject_template="{outbox}", wire_format=wire_format,
        keeps_headers=keeps_headers, binding=binding,
    )  # fmt: skip
    (record,) = wire.records([sent])
    event_id = "{header.relay-id}" if wire_format == "raw" else None
    decoder = Decoder("p", wire_format=wire_format, event_id=event_id)
    row = decoder.decode(Received("source/1", record.body, record.headers, record.key, record.subject))
    assert isinstance(row, InboxRow), row
    if wire_format != "debezium" or "id" not in headers:
        assert row.event_id == record.dedup_id, (row.event_id, record.dedup_id)
    if wire_format != "debezium" or not payload.startswith('"'):
        assert row.payload == payload
    if wire_format == "envelope":
        assert (row.aggregate_id, row.event_sequence, row.source) == (key, sent.id, "orders")
        assert row.headers == own


def message(rng: random.Random) -> Received:
    headers = {
        swarm(rng, HEADERS, lambda: text(rng)): swarm(rng, VALUES, lambda: text(rng)) for _ in range(rng.randrange(7))
    }
    key = rng.choice((None, text(rng), '"quoted"', '{"schema":{},"payload":"k"}', hard_json(rng, 2000)))
    return Received(rng.choice(("s/1", text(rng), "x" * 600)), body(rng), headers, key, text(rng, 3))


def body(rng: random.Random) -> bytes:
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(64))
    if kind == 1:
        return json_text(rng).encode()
    if kind == 2:
        return hard_json(rng, MOST_BYTES // 2).encode()[:MOST_BYTES]
    made = "{" + ",".join(f"{json.dumps(name)}:{member(rng, name)}" for name in some(rng)) + "}"
    data = made.encode()[:MOST_BYTES]
    return mutated(rng, data) if kind < 5 else data


def some(rng: random.Random) -> list[str]:
    """Names of members: often those that make a whole event."""
    whole = rng.choice((("version", "id", "payload"), ("specversion", "id", "source", "type"), ("id", "payload"), ()))
    names = [*whole, *(swarm(rng, NAMES, lambda: text(rng)) for _ in range(rng.randrange(5)))]
    rng.shuffle(names)
    return names


def member(rng: random.Random, name: str) -> str:
    if rng.random() < 0.6:
        usual = {"version": "1", "specversion": '"1.0"', "message_id": "17", "headers": '{"type":"t"}', "id": '"e1"'}
        return usual.get(name, '"x"')
    if rng.random() < 0.1:
        return hard_json(rng, MOST_BYTES // 4)
    return rng.choice((json_text(rng), '"aGk="', '"\\ud800"', '"é"', "12345678901234567890123", "NaN", '"\\u0000"'))


def configured(rng: random.Random) -> None:
    """A template or a path that is made of anything is understood, or refused by ConfigError."""
    with contextlib.suppress(ConfigError):
        Decoder("p", event_id=text(rng, 8), event_type="$." + text(rng, 5), aggregate_id="{" + text(rng, 4) + "}")


if __name__ == "__main__":
    main("decoding", Decoding())
