"""The runbook of each disaster, on a fleet that has it: it shows as printed, is fixed, and nothing is lost."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.docs.runbook_fleet import LEASE_MS, OUTBOX, PIPELINE, Site
from tests.docs.runbooks import PATIENCE_SECONDS
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("runbooks"), pytest.mark.timeout(600)]


def test_postgresql_restarted_or_failed_over(at: Site) -> None:
    runbook = at.runbook("PostgreSQL restarted or failed over")
    server = at.database.server
    at.publish(200)
    server.kill()
    try:
        runbook.look()
        wait_until(lambda: at.scheduler.get("/ready")[0] == 503, PATIENCE_SECONDS, "the scheduler says it too")
        runbook.fix()
    finally:
        server.start()
    at.deliver()
    runbook.wait_over()
    at.nothing_is_lost()


def test_the_broker_lost_everything(at: Site) -> None:
    runbook = at.runbook("Redis or RabbitMQ lost everything")
    at.workers.terminate()
    at.workers.wait_exit(PATIENCE_SECONDS)
    try:
        at.publish()
        runbook.look("drain lost")
        at.redis.flush()
    finally:
        at.workers.start()
    runbook.fix()
    wait_until(lambda: at.scheduler.says("drain lost"), PATIENCE_SECONDS, "the scheduler misses it")
    runbook.wait_over()
    at.nothing_is_lost()


def test_a_sink_down_for_hours(at: Site) -> None:
    runbook = at.runbook("A sink down for hours")
    at.pipelines.control(PIPELINE, down=True)
    ids = at.publish()
    runbook.look()
    assert not runbook.is_over()
    at.pipelines.control(PIPELINE)
    runbook.fix()
    at.wait_delivered(ids)
    runbook.wait_over()
    at.nothing_is_lost()


def test_a_bad_message(at: Site) -> None:
    runbook = at.runbook("A bad message")
    at.pipelines.control(PIPELINE, stop_at=15)
    ids = at.publish()
    runbook.look()
    assert not runbook.is_over()

    def put_aside() -> bool:
        """The page says to do it again while a drain is still running."""
        runbook.fix()
        return at.pipelines.dead_letters(PIPELINE) == [15]

    wait_until(put_aside, PATIENCE_SECONDS, "the message is put aside")
    at.wait_delivered([number for number in ids if number != 15])
    runbook.wait_over()
    at.nothing_is_lost()
    at.pipelines.control(PIPELINE)
    runbook.relay(f"relay dead-letter retry --pipeline {PIPELINE}")
    at.wait_delivered([15])


def test_stop_a_pipeline_immediately(at: Site) -> None:
    runbook = at.runbook("Stop a pipeline immediately")

    def delivers() -> bool:
        shown = runbook.relay("relay status")
        return any(words in shown for words in runbook.symptoms())

    wait_until(delivers, PATIENCE_SECONDS, "relay status says that it delivers")
    disable, stopped, enable = (text for _, text in runbook.blocks("Fix."))
    runbook.relay(disable.strip())
    wait_until(lambda: runbook.query(stopped)[0]["stopped"], PATIENCE_SECONDS, "nothing goes out any more")
    ids = at.publish()
    assert "disabled" in runbook.relay("relay status") and not runbook.is_over()
    assert not set(ids) & set(at.pipelines.delivered(PIPELINE))
    runbook.relay(enable.strip())
    at.wait_delivered(ids)
    runbook.wait_over()
    at.nothing_is_lost()


def test_all_workers_killed(at: Site) -> None:
    runbook = at.runbook("All workers killed")
    at.pipelines.control(PIPELINE, delay_ms=LEASE_MS // 3)
    at.publish(500)
    wait_until(lambda: at.pipelines.drain(PIPELINE)["leased"], PATIENCE_SECONDS, "a drain runs")
    at.workers.kill()

    def says(words: str) -> bool:
        return words in runbook.relay("relay status")

    try:
        # First the state of the lease, and then that no worker takes the drain.
        for words in runbook.symptoms():
            wait_until(partial(says, words), PATIENCE_SECONDS, f"relay status says {words}")
        assert not runbook.is_over()
        runbook.fix()
    finally:
        at.pipelines.control(PIPELINE)
        at.workers.start()
    runbook.wait_over()
    at.nothing_is_lost()


def test_a_scheduler_lost(at: Site) -> None:
    runbook = at.runbook("A scheduler lost")
    second = at.fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1s", RELAY_MAINTENANCE_INTERVAL="1h")
    second.wait_ready()
    at.scheduler.kill()
    try:
        runbook.look()
        ids = at.publish()
        at.wait_delivered(ids)
        assert second.owned() == 1
        runbook.wait_over()
        at.nothing_is_lost()
    finally:
        at.scheduler.start()
        second.kill()
        at.fleet.processes.remove(second)


def test_disk_filled_by_an_outbox(at: Site) -> None:
    runbook = at.runbook("Disk filled by an outbox")
    at.pipelines.run("select tide.create_consumer_group('forgotten', %s)", OUTBOX)
    at.fill_partitions(2)
    before = _bytes(at)
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    wait_until(lambda: _bytes(at) < before / 4, PATIENCE_SECONDS, "the room is given back")
    runbook.wait_over()
    at.deliver()
    assert set(at.pipelines.delivered(PIPELINE)) == set(range(1, 1021 + 1000)), "all of it was delivered before it went"


def _bytes(at: Site) -> int:
    [(size,)] = at.pipelines.run("select sum(pg_total_relation_size(relid)) from pg_partition_tree('tide.message')")
    return int(size)


def test_roll_back_a_bad_deployment(at: Site) -> None:
    runbook = at.runbook("Roll back a bad deployment")
    at.pipelines.run(
        """select tide.relay_set_outbox(name, 'orders', config || '{"batch_size": 1, "folder": "/nowhere"}')
             from tide.pipeline"""
    )
    ids = at.publish()
    runbook.look()
    assert not runbook.is_over()
    runbook.fix()
    at.wait_delivered(ids)
    runbook.wait_over()
    at.nothing_is_lost()


def test_replay_a_range(at: Site) -> None:
    runbook = at.runbook("Replay a range")
    runbook.look()
    runbook.fix()
    runbook.wait_over()
    delivered = at.pipelines.delivered(PIPELINE)
    assert sorted(delivered) == sorted([*range(1, 11), *range(3, 8)])


def test_move_a_pipeline_to_another_destination(at: Site, tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "elsewhere.jsonl"
    at.pipelines.set(PIPELINE, sink_type="file", path=str(old))
    runbook = at.runbook(
        "Move a pipeline to another destination", **{"/var/lib/tide-relay/out/elsewhere.jsonl": str(new)}
    )
    at.publish(500)
    wait_until(old.exists, PATIENCE_SECONDS, "it delivers to the old place")
    runbook.look(*runbook.symptoms())
    runbook.fix()
    after = at.publish(500)
    runbook.wait_over()
    there, here = (
        {json.loads(line)["id"] for line in path.read_text().splitlines()} if path.exists() else set()
        for path in (old, new)
    )
    assert here >= {f"{OUTBOX}:{number}" for number in after}
    assert there | here == {f"{OUTBOX}:{number}" for number in range(11, 1011)}
