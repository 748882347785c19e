"""Workers that are killed, frozen and stopped in the middle of a batch."""

import os
import signal
import time

import pytest

from tests.faults.audit import read_publishes
from tests.fleets.proc import is_alive
from tests.waiting import wait_until

# Killed workers hold their lease for so long.
LEASE = {"visibility_timeout_ms": 2000, "timeout_ms": 1500}


@pytest.mark.parametrize("how", ["kill", "kill_child"])
def test_a_worker_killed_in_mid_batch_loses_nothing_and_keeps_the_order(fleet, pipelines, how):
    fleet.scheduler()
    workers = fleet.workers()
    fleet.wait_ready()
    pipelines.make("orders", **LEASE)
    pipelines.control("orders", delay_ms=300)
    pipelines.publish("orders", 500)
    pipelines.wait_attempts("orders", 2)
    getattr(workers, how)()
    workers.start()
    pipelines.wait_settled()
    verdict = pipelines.judge("orders", kills=fleet.kills)
    assert verdict.is_right and verdict.interrupted == 1, verdict


def test_another_worker_takes_over_within_seconds(fleet, pipelines):
    fleet.scheduler()
    groups = {group.children()[0]: group for group in (fleet.workers(), fleet.workers()) if group.wait_ready() is None}
    pipelines.make("orders", **LEASE)
    pipelines.control("orders", delay_ms=300)
    pipelines.publish("orders", 500)
    pipelines.wait_attempts("orders")
    groups[read_publishes(pipelines.folder, "orders")[0].pid].kill()
    killed_at = time.monotonic()
    pipelines.wait_settled()
    assert time.monotonic() - killed_at < 2 + 5 * 0.3 + 3
    verdict = pipelines.judge("orders", kills=fleet.kills)
    assert verdict.is_right and verdict.interrupted == 1, verdict


def test_a_frozen_worker_is_fenced_when_it_comes_back_and_writes_nothing_more(fleet, pipelines):
    fleet.scheduler()
    groups = {group.children()[0]: group for group in (fleet.workers(), fleet.workers()) if group.wait_ready() is None}
    pipelines.make("orders", **LEASE)
    pipelines.control("orders", delay_ms=300)
    pipelines.publish("orders", 1000)
    pipelines.wait_attempts("orders", 2)
    frozen = groups[read_publishes(pipelines.folder, "orders")[0].pid]
    frozen.freeze()
    pipelines.wait_settled()
    before = pipelines.drain("orders")
    frozen.thaw()
    thawed_ns = time.monotonic_ns()
    wait_until(lambda: frozen.says("drain fenced"), 20, "it finds that it is fenced")
    after = pipelines.drain("orders")
    assert (after["offset_id"], after["delivered"]) == (before["offset_id"], before["delivered"]) == (1000, 1000)
    later = [p for p in read_publishes(pipelines.folder, "orders") if p.begun_ns > thawed_ns]
    assert later == [], "nothing was published after it came back"
    verdict = pipelines.judge("orders", frozen=fleet.frozen)
    assert verdict.is_right and verdict.duplicates == 100, verdict
    pipelines.control("orders")
    pipelines.wait_delivered("orders", pipelines.publish("orders", 5))


def test_sigterm_settles_the_batch_in_hand_and_nothing_is_sent_again(fleet, pipelines):
    fleet.scheduler()
    workers = fleet.workers(processes=2)
    fleet.wait_ready()
    pipelines.make("orders")
    pipelines.control("orders", delay_ms=300)
    pipelines.publish("orders", 600)
    pipelines.wait_attempts("orders", 2)
    workers.terminate()
    assert workers.wait_exit(15) == 0
    done = pipelines.delivered("orders")
    assert pipelines.drain("orders")["offset_id"] == len(done) < 600
    assert pipelines.drain("orders")["leased"] is None
    pipelines.control("orders")
    workers.start()
    pipelines.wait_settled()
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == verdict.interrupted == 0, verdict


def test_told_as_one_of_a_group_a_worker_settles_the_batch_in_hand(fleet, pipelines):
    """Each process is told directly, and again by its master: one request, as systemd makes it."""
    fleet.scheduler()
    workers = fleet.workers(processes=2)
    fleet.wait_ready()
    pipelines.make("orders")
    pipelines.control("orders", held=True)
    pipelines.publish("orders", 100)
    pipelines.wait_attempts("orders")
    os.kill(read_publishes(pipelines.folder, "orders")[0].pid, signal.SIGTERM)
    wait_until(lambda: workers.says("Shutting down"), 20, "the one with the batch has been told")
    workers.terminate()
    wait_until(lambda: workers.says("Stopping fork process"), 20, "its master has told all, and this one last")
    pipelines.control("orders")
    assert workers.wait_exit() == 0
    assert len(pipelines.delivered("orders")) == pipelines.drain("orders")["offset_id"] == 100
    assert pipelines.drain("orders")["leased"] is None


def test_told_again_and_again_the_workers_end_at_once(fleet, pipelines):
    fleet.scheduler()
    workers = fleet.workers()
    fleet.wait_ready()
    pipelines.make("orders", timeout_ms=29_000)
    pipelines.control("orders", delay_ms=28_000)
    pipelines.publish("orders")
    pipelines.wait_attempts("orders")
    (worker,) = workers.children()

    def ended():
        workers.terminate()
        return not is_alive(worker)

    wait_until(ended, 10, "it does not wait for the batch in hand")
    assert workers.wait_exit(5) != 0


def test_the_processes_of_a_killed_master_finish_their_batch_and_end(fleet, pipelines):
    fleet.scheduler()
    workers = fleet.workers(processes=2)
    fleet.wait_ready()
    pipelines.make("orders")
    pipelines.control("orders", delay_ms=200)
    pipelines.publish("orders", 2000)
    pipelines.wait_attempts("orders", 2)
    orphans = workers.pids()[1:]
    assert len(orphans) == 3
    os.kill(workers.pid, signal.SIGKILL)
    workers.wait_exit()
    wait_until(lambda: not any(map(is_alive, orphans)), 15, "the orphans are gone")
    done = pipelines.delivered("orders")
    assert pipelines.drain("orders")["offset_id"] == len(done) < 2000
    pipelines.control("orders")
    workers.start()
    pipelines.wait_settled()
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == verdict.interrupted == 0, verdict
