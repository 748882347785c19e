"""What a forward drain reads: small batches are cut from a larger read, and the first read comes with the begin."""

import json

import psycopg
import pytest

from relay.backends.memory.sink import MemorySink
from relay.drains import lease, outbox
from relay.models import Failure


@pytest.fixture
def reads(monkeypatch):
    """Where each read began, in order; the first number is 0 for one that came with the begin."""
    found = []

    def counted(number, ask):
        def asked(connection, place, *horizon):
            found.append((number, place.after))
            return ask(connection, place, *horizon)

        return asked

    monkeypatch.setattr(lease, "ask_messages", counted(0, lease.ask_messages))
    monkeypatch.setattr(outbox, "ask_messages", counted(1, outbox.ask_messages))
    return found


@pytest.fixture
def batches(monkeypatch):
    """The ids of each batch that the sink got."""
    found = []
    publish = MemorySink.publish

    def noted(self, records):
        found.append([record.id for record in records])
        return publish(self, records)

    monkeypatch.setattr(MemorySink, "publish", noted)
    return found


def test_batches_have_their_size_however_much_is_read_at_once(bench, store, reads, batches):
    ids = bench.publish(35)
    assert bench.drain() == "idle"
    assert batches == [ids[:10], ids[10:20], ids[20:30], ids[30:]]
    assert reads[:2] == [(1, 0), (1, ids[-1])], "one read for all, and one that finds nothing more"
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[-1],)]


def test_what_was_read_and_not_sent_is_read_again_by_the_next_drain(bench, store, batches):
    ids = bench.publish(35)
    store.refuse = lambda _index, record: Failure(_index, False, "busy", "later") if record.id == ids[14] else None
    assert bench.drain() == "failed"
    store.refuse = lambda _index, _record: None
    late = bench.publish(1)
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == [*ids, *late]
    assert batches[2] == ids[14:24]


def test_a_read_is_bounded_in_bytes(bench, store, reads, batches):
    ids = bench.publish(5, payload="x" * 900_000)
    assert bench.drain() == "idle"
    assert batches == [ids[:3], ids[3:]]
    assert [after for _, after in reads[:3]] == [0, ids[2], ids[4]]


def test_the_first_read_of_the_next_drain_comes_with_its_begin(bench, store, reads):
    first = bench.publish(3)
    assert bench.drain() == "idle"
    reads.clear()
    second = bench.publish(3)
    assert bench.drain() == "idle"
    assert reads[:2] == [(0, first[-1]), (1, second[-1])]
    assert [record.id for record in store.received] == first + second


@pytest.mark.parametrize("offset", [1, 5])
def test_a_first_read_at_the_wrong_place_is_thrown_away(bench, store, reads, offset):
    """Another process has drained the pipeline meanwhile, or an operator has set the offset back."""
    ids = bench.publish(3)
    assert bench.drain() == "idle"
    reads.clear()
    later = bench.publish(4)
    bench.query("update tide.consumer_group set offset_id = %s", offset)
    assert bench.drain() == "idle"
    assert reads[:2] == [(0, ids[-1]), (1, offset)]
    assert [record.id for record in store.received] == ids + [id_ for id_ in ids + later if id_ > offset]


def test_a_first_read_for_a_drain_that_is_stale_is_thrown_away(bench, store, reads):
    bench.publish(3)
    assert bench.drain() == "idle"
    bench.numbers["p"] = 0
    bench.publish(3)
    bench.drain()
    assert len(store.received) == 3
    assert bench.last("lease_until") is None


def test_an_object_that_is_begun_again_has_what_was_read_ahead_once_and_in_order(bench, tmp_path, monkeypatch):
    """A message makes the encoder raise, so the object starts at the offset once more, behind which more was read."""
    from relay.backends.object_storage.encode import LinesEncoder

    bench.publish_to(
        sink_type="object_storage", path=str(tmp_path), create=True, compression="none", max_rows=12, batch_size=4
    )
    ids = bench.publish(12)
    add = LinesEncoder.add

    def add_or_raise(self, records):
        if any(record.id == ids[1] for record in records):
            raise RecursionError
        return add(self, records)

    monkeypatch.setattr(LinesEncoder, "add", add_or_raise)
    bench.drain()
    [made] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [json.loads(line)["message_id"] for line in made.read_text().splitlines()] == [ids[0], *ids[2:]]


def test_a_first_batch_that_is_all_there_is_goes_out_before_anything_else_is_asked(bench, store, reads, monkeypatch):
    """Most drains of a quiet pipeline: one read with the begin, and one after the bell was armed, with the settle."""
    bench.publish(3)
    assert bench.drain() == "idle"
    ids = bench.publish(3)
    reads.clear()
    publish, before = MemorySink.publish, []

    def noted(self, records):
        before.extend(reads)
        return publish(self, records)

    monkeypatch.setattr(MemorySink, "publish", noted)
    assert bench.drain() == "idle"
    assert (before, reads[1:]) == (reads[:1], [(1, ids[-1])])
    assert bench.query("select offset_id, armed from tide.consumer_group join tide.bell using (group_id)") == [
        (ids[-1], True)
    ]


def test_what_is_published_while_a_first_batch_is_sent_is_found_by_the_same_drain(bench, store, monkeypatch):
    ids = bench.publish(3)
    publish = MemorySink.publish

    def late(self, records):
        ids.extend(bench.publish(1) if len(ids) < 6 else [])
        return publish(self, records)

    monkeypatch.setattr(MemorySink, "publish", late)
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == ids
    assert len(ids) == 6


def test_a_first_batch_that_fails_in_part_settles_that_part_and_silences_the_bell(bench, store):
    ids = bench.publish(3)
    store.refuse = lambda index, record: Failure(index, False, "busy", "later") if record.id == ids[1] else None
    assert bench.drain() == "failed"
    assert bench.query("select offset_id, armed from tide.consumer_group join tide.bell using (group_id)") == [
        (ids[0], False)
    ]


def test_a_first_batch_before_ids_that_were_rolled_back_moves_the_offset_over_them(bench, store, monkeypatch):
    bench.publish(3)
    publish = MemorySink.publish

    def rolled_back(self, records):
        with pytest.raises(psycopg.errors.DivisionByZero):
            bench.query("select tide.outbox_publish('orders', '1'), 1 / (random() * 0)::int")
        return publish(self, records)

    monkeypatch.setattr(MemorySink, "publish", rolled_back)
    assert bench.drain() == "idle"
    assert bench.query("select offset_id from tide.consumer_group") == bench.query("select tide.outbox_last_id(1)")


@pytest.fixture
def settles(monkeypatch):
    """The offset of each settle, and how many messages it counts as delivered."""
    found = []
    settle = outbox.Reader._settle

    def noted(self, settled):
        found.append((settled.offset_id, settled.delivered))
        return settle(self, settled)

    monkeypatch.setattr(outbox.Reader, "_settle", noted)
    return found


def test_batches_cut_from_one_read_are_settled_together(bench, store, settles, batches, monkeypatch):
    """Each for itself would cost as much as its messages. The second comes with the bell."""
    monkeypatch.setattr("workers.batches.SETTLE_SECONDS", 3600)
    ids = bench.publish(65)
    assert bench.drain() == "idle"
    assert [len(batch) for batch in batches] == [10] * 6 + [5]
    assert settles == [(ids[9], 10), (ids[59], 50), (ids[-1], 5)]
    assert bench.last("delivered") == 65


def test_what_was_delivered_waits_only_so_long_to_be_settled(bench, store, settles, monkeypatch):
    monkeypatch.setattr("workers.batches.SETTLE_SECONDS", 0)
    ids = bench.publish(35)
    assert bench.drain() == "idle"
    assert settles == [(ids[9], 10), (ids[19], 10), (ids[29], 10), (ids[-1], 5)]


def test_what_waits_to_be_settled_is_settled_before_a_drain_fails(bench, store, settles, monkeypatch):
    monkeypatch.setattr("workers.batches.SETTLE_SECONDS", 3600)
    ids = bench.publish(65)
    store.refuse = lambda index, record: Failure(index, False, "busy", "later") if record.id == ids[40] else None
    assert bench.drain() == "failed"
    assert settles == [(ids[9], 10), (ids[39], 30)]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[39],)]


def test_dead_letters_do_not_wait(bench, store, settles, monkeypatch):
    monkeypatch.setattr("workers.batches.SETTLE_SECONDS", 3600)
    ids = bench.publish(65)
    store.refuse = lambda index, record: Failure(index, True, "no", "never") if record.id == ids[35] else None
    assert bench.drain() == "idle"
    assert settles == [(ids[9], 10), (ids[39], 29), (ids[59], 20), (ids[-1], 5)]
    assert (bench.last("delivered"), bench.last("dead_letters")) == (64, 1)
