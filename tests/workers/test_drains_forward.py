"""Single forward drains on a real database that gather many batches into one object."""

import json

import pytest

from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "objects"
    made.mkdir()
    return made


def gather(bench, folder, **config):
    keys = {"sink_type": "object_storage", "path": str(folder), "compression": "none", "poll_interval_ms": 50}
    bench.publish_to(**keys | config)


def objects(folder):
    """name -> the ids in it."""
    return {
        path.name: [json.loads(line)["message_id"] for line in path.read_text().splitlines()]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def test_messages_wait_until_there_is_an_object_of_them(bench, folder):
    gather(bench, folder, max_rows=10)
    ids = bench.publish(7)
    assert bench.drain() == "later"
    assert objects(folder) == {}
    assert bench.query("select armed from tide.bell") == [(False,)], "no publisher has to ring for each of them"
    ids += bench.publish(5)
    assert bench.drain() == "later"
    assert list(objects(folder).values()) == [ids[:10]]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[9],)]
    assert bench.last("delivered") == 10


def test_the_oldest_message_waits_no_longer_than_it_may(bench, folder):
    gather(bench, folder, max_age_ms=1000)
    ids = bench.publish(3)
    wait_until(lambda: bench.drain() == "idle", 10, "everything is written")
    assert list(objects(folder).values()) == [ids]
    assert bench.query("select armed from tide.bell") == [(True,)]


def test_a_size_closes_an_object(bench, folder):
    gather(bench, folder, max_bytes=1024 * 1024)
    ids = bench.publish(5, payload="x" * 500_000)
    bench.drain()
    assert list(objects(folder).values()) == [ids[:3]]


def test_an_object_of_a_drain_that_died_is_written_again_under_the_same_name(bench, folder):
    gather(bench, folder, max_rows=10)
    ids = bench.publish(10)
    bench.drain()
    [name] = objects(folder)
    # As if the worker had died between the object and its settle; meanwhile more was published.
    bench.query("update tide.consumer_group set offset_id = 0")
    ids += bench.publish(4)
    gather(bench, folder, max_rows=12)
    bench.drain()
    assert objects(folder) == {name: ids[:10]}, "what was begun with ten is ended with ten"


def test_an_offset_that_is_set_back_makes_the_plan_of_the_last_object_void(bench, folder):
    gather(bench, folder, max_rows=10)
    ids = bench.publish(20)
    bench.drain()
    written = objects(folder)
    assert list(written.values()) == [ids[:10], ids[10:]]
    for offset_id in (0, ids[4]):
        bench.query("update tide.consumer_group set offset_id = %s", offset_id)
        bench.drain()
    again = objects(folder)
    assert again.items() >= written.items(), "from the beginning the same objects are written"
    assert [found for name, found in again.items() if name not in written] == [ids[5:15]]


def test_a_bad_record_is_a_dead_letter_of_the_object(bench, folder):
    gather(bench, folder, max_age_ms=1000, wire_format="raw", max_rows=3)
    ids = bench.publish(3)
    bench.drain()
    assert bench.query("select count(*) from tide.dead_letter") == [(0,)]
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[2],)]
