"""When a message was published, as it is sent: RFC 3339 in UTC with microseconds, whatever PostgreSQL is set to."""

import json

import pytest

from relay.models import Failure

MOMENTS = {
    "2025-01-01 00:30:00.000005+01": "2024-12-31T23:30:00.000005Z",
    "2025-06-30 23:59:59.5-12:45": "2025-07-01T12:44:59.500000Z",
    "infinity": "9999-12-31T23:59:59.999999Z",
    "-infinity": "0001-01-01T00:00:00.000000Z",
    "20000-01-01 00:00Z": "9999-12-31T23:59:59.999999Z",
    "0044-03-15 12:00Z BC": "0001-01-01T00:00:00.000000Z",
}
"""The times of messages, and what is sent of them: years have four digits there."""

SETTINGS = [("UTC", "ISO"), ("Asia/Kathmandu", "German, DMY"), ("America/St_Johns", "Postgres, MDY")]

SENT = {
    "raw": lambda record: record.headers["relay-created-at"],
    "envelope": lambda record: json.loads(record.body)["created_at"],
    "cloudevents": lambda record: json.loads(record.body)["time"],
}


@pytest.mark.parametrize(("wire_format", "settings"), list(zip(SENT, SETTINGS, strict=True)))
def test_it_is_the_same_text_live_as_a_dead_letter_and_in_a_replay(bench, store, wire_format, settings):
    [[database]] = bench.query("select current_database()")
    for name, value in zip(("timezone", "datestyle"), settings, strict=True):
        bench.query(f"alter database {database} set {name} = '{value}'")
    bench.publish_to(sink_type="memory", name="redelivery", wire_format=wire_format)
    ids = bench.publish(len(MOMENTS))
    for message_id, moment in zip(ids, MOMENTS, strict=True):
        bench.query("update tide.message set created_at = %s::timestamptz where id = %s", moment, message_id)
    store.refuse = lambda index, _record: Failure(index, True, "rejected", "not yet")
    assert bench.drain() == "idle"
    store.refuse = lambda _index, _record: None
    bench.query("select tide.relay_dlq_retry('p')")
    assert bench.drain() == "idle"
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    assert bench.drain() == "idle"
    bench.query("update tide.consumer_group set offset_id = 0")
    assert bench.drain() == "idle"
    expected = list(MOMENTS.values())
    assert [record.created_at for record in store.received] == 3 * expected
    assert [SENT[wire_format](record) for record in store.received] == 3 * expected
