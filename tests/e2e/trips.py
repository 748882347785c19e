"""What goes there and back again, and how one knows that it arrived as it was."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from tests.e2e.systems import LARGE, System
from tests.paths import DATA
from tests.services.postgres import Database

TRACE = "ab" * 16
HEADERS: dict[str, Any] = {
    "type": "order.paid",
    "tenant": 'Zoë "日本" 🚀 50%',
    "Mixed-Case": "x y",
    "n": 7,
    "large": 9007199254740993,
    "nested": {"a": [1, None]},
    "traceparent": f"00-{TRACE}-{'cd' * 8}-01",
}
EXTENSIONS = frozenset({"tenant", "n", "large", "nested", "traceparent"})
"""Those that are attributes of an event, wherever it goes."""

TEXT_OF_AN_OBJECT = '"{\\"a\\": 1}"'
AWKWARD = [
    "{}", "[]", "null", '""', "false", "0", "[" * 500 + "]" * 500, '{"a": ' * 2000 + "1" + "}" * 2000,
    '{"n": 12345678901234567890123, "f": 0.1000000000000000055511151231257827, "g": 1.10, "h": -1e400, "i": 1e-400}',
    '{"emoji": "👩‍👩‍👧 日本語 \\ud83d\\ude00", "controls": "\\u0001\\u001f\\u007f\\u0085\\u2028\\ufeff\\t\\r\\n"}',
    '{"nul": "\\\\u0000", "quote": "\\"\\\\", "odd": "\\ufffe\\uffff", "": {"": []}}',
    '{"payload": {"data": 1}, "schema": null, "specversion": "1.0", "id": "not ours", "data_base64": "eA=="}',
    '"  \\n "', '"{\\"a\\": 1"', "[null, [null]]", TEXT_OF_AN_OBJECT,
]  # fmt: skip
"""As JSON text. `jsonb` cannot hold the character \\u0000, so a text that merely looks like it is the nearest."""


class Sent(NamedTuple):
    key: str | None
    headers: dict[str, Any]
    payload: str


def messages(system: System, wire_format: str) -> list[Sent]:
    """Real events, of many keys and of none, then what is hard on purpose, the last as large as the system takes."""
    events = [json.loads(line) for line in (DATA / "github-events.jsonl").read_text("utf-8").splitlines()]
    sent = [Sent(event["key"], {"type": event["type"]}, json.dumps(event["payload"])) for event in events]
    keys = ["schlüssel/ключ 🔑", None, "a b\tc"]
    hard = [*AWKWARD, json.dumps("x" * (system.large_bytes - 2))]
    if wire_format == "debezium":
        hard.remove(TEXT_OF_AN_OBJECT)  # as Debezium sends an object: taken for one, as the page says
    return sent + [Sent(keys[n % 3], HEADERS, payload) for n, payload in enumerate(hard)]


def publish(database: Database, outbox: str, sent: Sequence[Sent]) -> None:
    with database.connect() as connection, connection.transaction():
        connection.execute("select tide.outbox_create(%s, max_payload_bytes => %s)", [outbox, 2 * LARGE])
        for message in sent:
            row = [outbox, message.payload, Jsonb(message.headers), message.key]
            connection.execute("select tide.outbox_publish(%s, %s::jsonb, %s, %s)", row)


def assert_arrived(
    origin: Database, target: Database, outbox: str, inbox: str, system: System, wire_format: str
) -> None:
    """Every message of the outbox is one row of the inbox, and is what it was, in so far as it travelled."""
    published = _rows(
        origin,
        "select %s || ':' || m.id, m.payload::text, m.key, m.headers from tide.message m "
        "join tide.outbox o using (outbox_id) where o.name = %s order by m.id",
        outbox, outbox,
    )  # fmt: skip
    arrived = _rows(
        target,
        f"select event_id, payload::text, aggregate_id, headers, event_type, trace_id from tide.{inbox} "
        "order by inbox_seq",
    )
    assert len(arrived) == len(published)
    found = {row[0]: row[1:] for row in arrived}
    assert found.keys() == {row[0] for row in published}, "every event id is that of its message"
    has_key = wire_format not in system.formats_without_key
    for event_id, payload, key, headers in published:
        got_payload, got_key, got_headers, got_type, got_trace = found[event_id]
        # jsonb prints equal values equally, and numbers with all their digits.
        assert got_payload == payload, event_id
        assert got_key == ((key or system.no_key.replace("{name}", outbox) or None) if has_key else None), event_id
        assert got_type == headers["type"], event_id
        wanted = _travelling(headers, system, wire_format)
        assert _texts(got_headers, wanted) == _texts(headers, wanted), event_id
        assert got_trace == (TRACE if "traceparent" in wanted else None), event_id
    _assert_order(published, [row[0] for row in arrived], system.order)


def _travelling(headers: dict[str, Any], system: System, wire_format: str) -> set[str]:
    """The names of the headers that the row must have."""
    if system.keeps_headers:
        return headers.keys() - {"type"}
    if wire_format == "envelope":
        return headers.keys() - {"type"}
    return set(headers.keys() & EXTENSIONS) if wire_format.startswith("cloudevents") else set()


def _texts(headers: dict[str, Any], names: set[str]) -> dict[str, str | None]:
    """Names in lower case, as HTTP has them."""
    lower = {name.lower(): value for name, value in headers.items()}
    found = {name.lower(): lower.get(name.lower()) for name in names}
    return {
        name: value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for name, value in found.items()
    }


def _assert_order(published: Sequence[Any], arrived: Sequence[str], order: str) -> None:
    if order == "none":
        return
    key_of = {event_id: None if order == "all" else key for event_id, _, key, _ in published}
    numbers_of: defaultdict[str | None, list[int]] = defaultdict(list)
    for event_id in arrived:
        numbers_of[key_of[event_id]].append(int(event_id.rpartition(":")[2]))
    if order == "keys":
        del numbers_of[None]
    late = {key: [pair for pair in pairwise(numbers) if pair[0] > pair[1]] for key, numbers in numbers_of.items()}
    assert not any(late.values()), {key: pairs[:5] for key, pairs in late.items() if pairs}


def _rows(database: Database, statement: str, *parameters: Any) -> list[Any]:
    with database.connect() as connection:
        return connection.execute(statement, parameters).fetchall()
