"""There and back again: through the sink into the source, byte for byte, in order per key."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from relay.models import Record
from tests.contract.kafka_harness import KafkaHarness
from tests.contract.kafka_source_harness import KafkaSourceHarness
from tests.contract.source_steps import opened as opened_source
from tests.contract.source_steps import take
from tests.contract.steps import opened, publish
from tests.services.kafka import KafkaServer

EVENTS = Path(__file__).parents[1] / "e2e" / "data" / "github-events.jsonl"

AWKWARD = [
    b"{}",
    b"null",
    b'""',
    '{"emoji": "😀", "nul": "\\u0000"}'.encode(),
    b'{"n": 12345678901234567890123, "f": 0.1000000000000000055511151231257827}',
    b'{"a": ' * 2000 + b"1" + b"}" * 2000,
    json.dumps({"big": "x" * 1024 * 1024}).encode(),
]


def records(topic: str) -> list[Record]:
    """Real events, of many keys and of none, then what is hard on purpose."""
    events = [json.loads(line) for line in EVENTS.read_text().splitlines()]
    bodies = [(event["key"], json.dumps(event["payload"]).encode()) for event in events]
    bodies += [(key, body) for body in AWKWARD for key in ("k", None)]
    headers = {"trace": "00-ab", "name": 'Zoë "日本"'}
    return [
        Record(number, f"orders:{number}", topic, key, body, headers | {"relay-id": f"orders:{number}"})
        for number, (key, body) in enumerate(bodies, 1)
    ]


@pytest.mark.parametrize("transactional", [False, True])
def test_what_was_sent_arrives_as_it_was(kafka_server: KafkaServer, transactional: bool) -> None:
    harness = KafkaHarness(kafka_server, partitions=4)
    sent = records(harness.topic)
    with opened(harness, transactional=transactional) as sink:
        for first in range(0, len(sent), 50):
            assert publish(sink, sent[first : first + 50]) == []
    with opened_source(KafkaSourceHarness(harness)) as source:
        received = take(source, len(sent))
    by_id = {message.headers["relay-id"]: message for message in received}
    assert by_id.keys() == {record.dedup_id for record in sent}
    for record in sent:
        message = by_id[record.dedup_id]
        assert (message.key, message.body, message.headers) == (record.key, record.body, record.headers)
    order = defaultdict(list)
    for message in received:
        if message.key is not None:
            order[message.key].append(int(message.headers["relay-id"].partition(":")[2]))
    assert all(numbers == sorted(numbers) for numbers in order.values())
