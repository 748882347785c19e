"""Dead letters that are retried and ranges that are replayed, by single drains on a real database and by a fleet."""

import json

import pytest
from psycopg.types.json import Jsonb

from relay.backends.memory.source import forget
from relay.models import Failure
from tests.waiting import wait_until


def refuse(store, *ids, permanent=True, code="bad"):
    """The sink has something against these messages, until it is told otherwise."""
    store.refuse = lambda index, record: (
        Failure(index, permanent, code, f"no {record.id}") if record.id in ids else None
    )


def received(store):
    return [record.id for record in store.received]


def dead(bench):
    return bench.query("select message_id, attempts, code from tide.relay_dlq_list() order by message_id")


def test_a_retried_dead_letter_is_delivered_and_gone(bench, store):
    ids = bench.publish(5)
    refuse(store, ids[1], ids[3])
    bench.drain()
    assert dead(bench) == [(ids[1], 1, "bad"), (ids[3], 1, "bad")]
    bench.drain()
    assert received(store) == [ids[0], ids[2], ids[4]], "nothing is sent again unless someone asks"
    refuse(store)
    assert bench.query("select tide.relay_dlq_retry('p')") == [(2,)]
    assert bench.drain() == "idle"
    assert received(store) == [ids[0], ids[2], ids[4], ids[1], ids[3]]
    assert [record.dedup_id for record in store.received[-2:]] == [f"orders:{ids[1]}", f"orders:{ids[3]}"]
    assert dead(bench) == []
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[-1],)]
    assert bench.last("delivered") == 5


def test_a_retried_message_arrives_as_it_would_have_the_first_time(bench, store):
    bench.query("select tide.outbox_create_if_not_exists('orders')")
    bench.query(
        "select tide.outbox_publish('orders', %s, %s, 'ключ')", Jsonb({"n": 1.50, "ü": None}), Jsonb({"type": "paid"})
    )
    refuse(store, 1)
    bench.drain()
    refuse(store)
    bench.query("select tide.relay_dlq_retry(dead_letter_id) from tide.dead_letter")
    bench.query(
        "select tide.outbox_publish('orders', %s, %s, 'ключ')", Jsonb({"n": 1.50, "ü": None}), Jsonb({"type": "paid"})
    )
    bench.drain()
    live, again = store.received
    assert again.id == 1
    assert (again.body, again.key, again.subject) == (live.body, live.key, live.subject)
    assert again.headers["type"] == "paid"
    assert set(again.headers) == set(live.headers)


def test_a_message_that_is_refused_again_stays_dead_and_is_not_tried_for_ever(bench, store):
    ids = bench.publish(3)
    refuse(store, ids[1])
    bench.drain()
    [(first, last)] = bench.query("select first_failed_at, failed_at from tide.dead_letter")
    assert first == last
    refuse(store, ids[1], code="worse")
    bench.query("select tide.relay_dlq_retry('p')")
    assert bench.drain() == "idle"
    assert dead(bench) == [(ids[1], 2, "worse")]
    [(kept, later, asked)] = bench.query("select first_failed_at, failed_at, retry_requested_at from tide.dead_letter")
    assert kept == first and later > last and asked is None


def test_a_sink_that_fails_keeps_the_request_and_the_live_messages_go_first(bench, store):
    ids = bench.publish(3)
    refuse(store, ids[0])
    bench.drain()
    refuse(store, ids[0], permanent=False, code="busy")
    bench.query("select tide.relay_dlq_retry('p')")
    more = bench.publish(2)
    assert bench.drain() == "later"
    assert received(store) == [*ids[1:], *more]
    assert bench.last("error_code") == "busy"
    assert bench.last("failures") == 1
    bench.publish()
    assert bench.drain() == "later"
    assert bench.last("failures") == 1, "live messages were delivered in between"
    refuse(store)
    assert bench.drain() == "idle"
    assert received(store)[-1] == ids[0]
    assert dead(bench) == []


def test_nothing_is_sent_once_more_while_live_messages_cannot_be_delivered(bench, store):
    ids = bench.publish(2)
    refuse(store, ids[0])
    bench.drain()
    bench.query("select tide.relay_dlq_retry('p')")
    [live] = bench.publish(1)
    refuse(store, live, permanent=False, code="busy")
    assert bench.drain() == "failed"
    assert received(store) == [ids[1]]


def test_a_message_of_an_outbox_that_the_pipeline_has_left_keeps_its_name(bench, store):
    ids = bench.publish(2)
    refuse(store, ids[0])
    bench.drain()
    refuse(store)
    bench.query("select tide.outbox_create('others')")
    bench.query("select tide.relay_set_outbox('p', 'others', (select config from tide.pipeline))")
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert [record.dedup_id for record in store.received] == [f"orders:{ids[1]}", f"orders:{ids[0]}"]


def test_only_what_was_asked_for_is_retried(bench, store):
    ids = bench.publish(4)
    refuse(store, *ids[:3])
    bench.drain()
    refuse(store)
    bench.query("select tide.relay_dlq_retry(dead_letter_id) from tide.dead_letter where message_id = %s", ids[1])
    bench.query("select tide.relay_dlq_discard(dead_letter_id) from tide.dead_letter where message_id = %s", ids[2])
    bench.drain()
    assert received(store) == [ids[3], ids[1]]
    assert [row[0] for row in dead(bench)] == [ids[0]]


def test_a_range_is_replayed_beside_the_live_flow_without_moving_the_offset(bench, store):
    ids = bench.publish(45)
    bench.drain()
    bench.query("select tide.relay_replay('p', %s, %s)", ids[5], ids[29])
    more = bench.publish(3)
    assert bench.drain() == "idle"
    assert received(store) == [*ids, *more, *ids[5:30]]
    assert bench.query("select offset_id from tide.consumer_group") == [(more[-1],)]
    [(delivered, ended)] = bench.query("select delivered, ended_at is not null from tide.relay_replays('p')")
    assert (delivered, ended) == (25, True)
    assert bench.query("select tide.redelivery_floor(1)") == [(None,)]


def test_a_replay_that_a_failing_sink_interrupts_goes_on_where_it_was(bench, store):
    ids = bench.publish(30)
    bench.drain()
    refuse(store, ids[17], permanent=False, code="busy")
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    assert bench.drain() == "later"
    assert bench.query("select next_id, ended_at from tide.relay_replays('p')") == [(ids[17], None)]
    assert bench.query("select tide.redelivery_floor(1)") == [(ids[17],)]
    refuse(store)
    assert bench.drain() == "idle"
    assert received(store) == [*ids, *ids]


def test_what_a_replay_cannot_deliver_is_a_dead_letter_and_what_it_delivers_is_none_any_more(bench, store):
    ids = bench.publish(6)
    refuse(store, ids[1], ids[2])
    bench.drain()
    refuse(store, ids[2], ids[4])
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    bench.drain()
    assert dead(bench) == [(ids[2], 2, "bad"), (ids[4], 1, "bad")]
    assert bench.query("select delivered, dead_letters from tide.relay_replays()") == [(4, 2)]


def test_a_cancelled_replay_delivers_nothing_more(bench, store):
    ids = bench.publish(20)
    bench.drain()
    [(replay,)] = bench.query("select tide.relay_replay('p', %s)", ids[0])
    assert bench.query("select tide.relay_replay_cancel(%s)", replay) == [(True,)]
    assert bench.query("select tide.relay_replay_cancel(%s)", replay) == [(False,)]
    bench.drain()
    assert received(store) == ids


def test_a_replay_of_messages_that_are_gone_ends(bench, store):
    ids = bench.publish(5)
    bench.drain()
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    bench.query("truncate tide.message")
    assert bench.drain() == "idle"
    assert bench.query("select delivered, ended_at is not null from tide.relay_replays()") == [(0, True)]


def test_a_fenced_drain_settles_no_redelivery(bench, store):
    ids = bench.publish(3)
    refuse(store, ids[0])
    bench.drain()

    def steal(index, record):
        if record.id == ids[0]:
            bench.query("update tide.drain set epoch = epoch + 1")

    store.refuse = steal
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert dead(bench) == [(ids[0], 1, "bad")]
    assert bench.query("select count(*) from tide.dead_letter where retry_requested_at is not null") == [(1,)]
    assert received(store).count(ids[0]) == 1, "it publishes nothing more"


def test_objects_of_retried_messages_do_not_replace_those_of_others(bench, tmp_path):
    bench.publish_to(
        sink_type="object_storage", path=str(tmp_path), compression="none", max_rows=5, batch_size=10,
        subject_template="{outbox}",
    )  # fmt: skip
    ids = bench.publish(5)
    bench.drain()
    [whole] = list(tmp_path.rglob("*.jsonl"))
    for number in (ids[0], ids[4]):
        bench.query(
            "insert into tide.dead_letter (pipeline, outbox, message_id, headers, payload, published_at, code, reason,"
            " retry_requested_at) values ('p', 'orders', %s, '{}', '1', now(), 'bad', 'bad', now())", number,
        )  # fmt: skip
    bench.drain()
    assert dead(bench) == []
    assert len(whole.read_text().splitlines()) == 5
    lines = [
        json.loads(line)["message_id"] for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert sorted(lines) == sorted([*ids, ids[0], ids[4]])


def test_a_local_inbox_takes_a_retried_message_in_the_transaction_that_settles_it(bench):
    bench.query("select tide.inbox_create('copies')")
    bench.publish_to(sink_type="inbox", inbox="copies")
    ids = bench.publish(3)
    bench.drain()
    bench.query("delete from tide.copies where event_id = %s", f"orders:{ids[1]}")
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    assert bench.drain() == "idle"
    assert sorted(bench.event_ids("copies")) == [f"orders:{n}" for n in ids], "what is there is not written twice"
    assert bench.query("select delivered from tide.relay_replays()") == [(3,)]


def test_a_fenced_drain_leaves_nothing_in_a_local_inbox(bench):
    bench.query("select tide.inbox_create('copies')")
    bench.publish_to(sink_type="inbox", inbox="copies")
    ids = bench.publish(2)
    bench.drain()
    bench.query("delete from tide.copies")
    bench.query(
        "create function public.steal() returns trigger language plpgsql as"
        " 'begin update tide.drain set epoch = epoch + 1; return null; end'"
    )
    bench.query("create trigger steal after insert on tide.copies for each statement execute function public.steal()")
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    bench.drain()
    assert bench.event_ids("copies") == []
    assert bench.query("select next_id, delivered from tide.relay_replays()") == [(ids[0], 0)]


# Reverse ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(bench):
    yield bench.receive_into("commands", slice_ms=1000)
    forget("commands")


def test_a_dead_letter_of_a_source_is_decoded_again_and_stored(bench, commands):
    bench.query(
        "insert into tide.dead_letter (pipeline, inbox, event_id, subject, key, headers, body, code, reason)"
        " select 'p', 'commands', 'e-' || n, 's', 'k', '{}', convert_to('{\"n\": ' || n || '}', 'UTF8'),"
        " 'invalid', 'as it was' from generate_series(1, 25) n"
    )
    bench.query("update tide.dead_letter set body = 'no json' where event_id = 'e-7'")
    bench.query("select tide.relay_dlq_retry('p')")
    # Half a slice each: how many drains that takes is a matter of the machine.
    asked_for = "select 1 from tide.dead_letter where retry_requested_at is not null"
    wait_until(lambda: bench.drain() and not bench.query(asked_for), 60, "nothing is asked for any more")
    assert bench.event_ids() == [f"e-{n}" for n in range(1, 26) if n != 7]
    [(event_id, attempts, asked)] = bench.query(
        "select event_id, attempts, retry_requested_at from tide.relay_dlq_list()"
    )
    assert (event_id, attempts, asked) == ("e-7", 2, None)
