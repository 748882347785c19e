"""Several schedulers: their shares, and what happens when one is killed, frozen or stopped."""

import os
import signal
import time

from tests.waiting import wait_until

NAMES = [f"pipeline{number}" for number in range(9)]


def shares(*schedulers) -> list[int]:
    return sorted(scheduler.owned() for scheduler in schedulers)


def test_three_schedulers_share_and_take_over_from_one_that_is_killed(fleet, pipelines):
    for name in NAMES:
        pipelines.make(name)
    fleet.workers()
    first = fleet.scheduler()
    wait_until(lambda: first.owned() == 9, 30, "the first owns all")
    second, third = fleet.scheduler(), fleet.scheduler()
    wait_until(lambda: shares(first, second, third) == [3, 3, 3], 30, "each owns a third")
    second.kill()
    wait_until(lambda: sum(shares(first, third)) == 9, 10, "the others own all")
    assert shares(first, third) == [4, 5]
    for name in NAMES:
        pipelines.publish(name, 3)
    pipelines.wait_settled()
    assert pipelines.judge_all().is_right


def test_a_new_scheduler_gets_its_share_of_pipelines_that_are_never_idle(fleet, pipelines):
    for name in NAMES:
        pipelines.make(name, batch_size=20, slice_ms=60_000)
        pipelines.control(name, delay_ms=50)
    fleet.workers(threads=9)
    first = fleet.scheduler()
    for name in NAMES:
        pipelines.publish(name, 4000)
    wait_until(lambda: all(map(pipelines.delivered, NAMES)), 30, "all are busy")
    second = fleet.scheduler()
    wait_until(lambda: shares(first, second) == [4, 5], 10, "they share")
    pipelines.wait_settled()
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_a_killed_scheduler_disturbs_no_running_drain(fleet, pipelines):
    pipelines.make("orders", slice_ms=20_000)
    pipelines.control("orders", delay_ms=200)
    fleet.workers()
    first = fleet.scheduler()
    fleet.wait_ready()
    pipelines.publish("orders", 4000)
    pipelines.wait_attempts("orders", 2)
    drain = pipelines.drain("orders")
    first.kill()
    second = fleet.scheduler()
    wait_until(lambda: second.owned() == 1, 20, "another one owns the pipeline")
    row = pipelines.drain("orders")
    assert row["leased"] and (row["epoch"], row["number"]) == (drain["epoch"], drain["number"]), "the drain goes on"
    pipelines.wait_settled()
    pipelines.wait_delivered("orders", pipelines.publish("orders"))
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == verdict.interrupted == 0, verdict
    assert pipelines.drain("orders")["epoch"] > drain["epoch"]


def test_a_frozen_scheduler_loses_its_pipelines_and_recovers(fleet, pipelines):
    for name in NAMES:
        pipelines.make(name)
    fleet.workers()
    frozen, other = (fleet.scheduler(TEST_EVICT_SECONDS="5") for _ in range(2))
    wait_until(lambda: shares(frozen, other) == [4, 5], 30, "they share")
    frozen.freeze()
    wait_until(lambda: other.owned() == 9, 20, "the other one owns all")
    assert other.says("took over from a scheduler that was frozen")
    for name in NAMES:
        pipelines.publish(name)
    pipelines.wait_settled()
    frozen.thaw()
    wait_until(lambda: shares(frozen, other) == [4, 5], 20, "they share again")
    assert frozen.says("session lost")
    for name in NAMES:
        pipelines.publish(name)
    pipelines.wait_settled()
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_a_stopped_scheduler_lets_go_at_once(fleet, pipelines):
    for name in NAMES:
        pipelines.make(name)
    first, second = fleet.scheduler(), fleet.scheduler()
    wait_until(lambda: shares(first, second) == [4, 5], 30, "they share")
    stopped_at = time.monotonic()
    first.terminate()
    wait_until(lambda: second.owned() == 9, 10, "the other one owns all")
    assert time.monotonic() - stopped_at < 2.5
    assert first.wait_exit(5) == 0
    assert pipelines.run("select count(*) from tide.scheduler") == [(1,)]


def test_the_second_signal_ends_a_scheduler_at_once(fleet, pipelines):
    scheduler = fleet.scheduler()
    fleet.wait_ready()
    scheduler.freeze()  # so that it finds both signals at the same moment
    os.kill(scheduler.pid, signal.SIGTERM)
    os.kill(scheduler.pid, signal.SIGINT)
    scheduler.thaw()
    assert scheduler.wait_exit(5) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_schedulers_of_different_groups_leave_each_other_alone(fleet, pipelines):
    pipelines.make("ours", relay_group_id="blue")
    pipelines.make("theirs", relay_group_id="green")
    blue = fleet.scheduler("", "--relay-group-id", "blue")
    green = fleet.scheduler("", "--relay-group-id", "green")
    fleet.workers()
    wait_until(lambda: shares(blue, green) == [1, 1], 30, "each owns its own")
    for name in ("ours", "theirs"):
        pipelines.wait_delivered(name, pipelines.publish(name))
    green.kill()
    wait_until(lambda: pipelines.run("select count(*) from tide.scheduler") == [(1,)], 10, "its death is noticed")
    assert blue.owned() == 1
