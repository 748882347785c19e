"""Pipelines that are changed, disabled, asked or hindered while they deliver once more."""

import pytest

from relay.backends.memory.source import forget
from relay.models import Failure
from tests.waiting import wait_until


@pytest.fixture
def commands(bench):
    yield bench.receive_into("commands")
    forget("commands")


def received(store):
    return [record.id for record in store.received]


def test_a_replay_ends_when_the_pipeline_is_given_another_outbox(bench, store):
    ids = bench.publish(5)
    bench.drain()
    bench.query("select tide.relay_replay('p', 1)")
    bench.query("select tide.outbox_create('others')")
    bench.query("select tide.relay_set_outbox('p', 'others', (select config from tide.pipeline))")
    [(other,)] = bench.query("select tide.outbox_publish('others', '{}')")
    bench.drain()
    assert [record.dedup_id for record in store.received] == [f"orders:{n}" for n in ids] + [f"others:{other}"]
    assert bench.query("select next_id, ended_at is null from tide.relay_replays()") == [(1, False)]


def test_a_replay_is_left_to_drains_that_read_its_outbox(bench, store):
    """A drain that began before the change still reads the outbox that was."""
    ids = bench.publish(3)
    bench.drain()
    bench.query("select tide.relay_replay('p', 1)")
    bench.query("update tide.replay set outbox_id = outbox_id + 1")
    bench.drain()
    assert received(store) == ids
    assert bench.query("select next_id from tide.relay_replays()") == [(1,)]


def test_a_pipeline_that_is_disabled_stops_after_the_batch_in_hand(bench, store):
    ids = bench.publish(45)
    bench.drain()
    bench.query("select tide.relay_replay('p', 1)")

    def disable(index, record):
        if len(store.received) > 45:
            bench.query("select tide.relay_disable('p')")

    store.refuse = disable
    bench.drain()
    assert received(store) == ids + ids[:10]
    store.refuse = lambda index, record: None
    bench.query("select tide.relay_enable('p')")
    bench.drain()
    assert received(store) == ids + ids


def test_a_drain_that_waits_on_its_source_notices_a_retry(bench, commands):
    bench.receive_into("commands", slice_ms=5000)
    bench.query(
        "insert into tide.dead_letter (pipeline, inbox, event_id, headers, body, code, reason)"
        " values ('p', 'commands', 'e-1', '{}', '{}', 'invalid', 'as it was')"
    )
    with bench.draining():
        wait_until(lambda: bench.query("select 1 from tide.drain where lease_until is not null"), 10, "the drain began")
        bench.query("select tide.relay_dlq_retry('p')")
        wait_until(lambda: bench.event_ids() == ["e-1"], 10, "it is stored")


def test_a_live_message_does_not_wait_for_what_fails_once_more(bench, store):
    bench.publish(1)
    store.refuse = lambda index, record: Failure(index, True, "bad", "no")
    bench.drain()
    store.refuse = lambda index, record: Failure(index, False, "busy", "not now")
    bench.query("select tide.relay_dlq_retry('p')")
    for failures in range(1, 4):
        assert bench.drain() == "later"
        assert bench.last("failures") == failures, "the pause grows"
        assert bench.last("error_code") == "busy"
    assert bench.query("select armed from tide.bell") == [(True,)], "publishers ring"
