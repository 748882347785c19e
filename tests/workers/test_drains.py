"""Single reverse drains on a real database: what they leave behind, when they end, and how they share threads."""

import itertools
import threading
import time
from functools import partial

import pytest

from relay.backends.memory.source import forget
from relay.drains.inbox import Writer
from tests.fleets.single_drains import Bench
from tests.waiting import wait_until
from workers import reverse


@pytest.fixture
def bench(database):
    made = Bench(database)
    yield made
    made.close()
    for name in ("commands", "others"):
        forget(name)


# Reverse -------------------------------------------------------------------------------------------------------------


def test_a_backlog_becomes_rows_in_order_and_is_acknowledged(bench):
    log = bench.receive_into("commands", slice_ms=300)
    for n in range(57):
        log.send(b'{"n": %d}' % n)
    assert bench.drain() == "more"
    assert bench.event_ids() == [f"commands/{n}" for n in range(57)]
    assert log.acknowledged == set(range(57))
    assert bench.last("delivered") == 57


def test_a_message_that_comes_while_the_drain_waits_lands_at_once(bench):
    log = bench.receive_into("commands", slice_ms=20_000)

    def is_stored(number):
        return len(bench.event_ids()) == number + 1

    with bench.draining():
        wait_until(lambda: bench.resources.wait_slots._free < 3, 10, "the drain waits on its source")
        for n in range(3):
            log.send(b"{}")
            wait_until(partial(is_stored, n), 5, "the message is in the inbox")
            wait_until(partial(log.acknowledged.__contains__, n), 5, "and acknowledged, with nothing else coming")
        bench.resources.stop.set()


def test_nothing_is_acknowledged_before_it_is_committed(bench):
    log = bench.receive_into("commands", slice_ms=300)
    bench.query("alter table tide.commands add column slow text default pg_sleep(0.3)::text")
    log.send(b"{}")
    with bench.draining():
        while True:
            acknowledged = set(log.acknowledged)  # looked at before the rows: they may be committed in between
            if bench.event_ids():
                break
            assert not acknowledged
    assert log.acknowledged == {0}


def test_a_bad_message_is_a_dead_letter_and_its_neighbours_are_rows(bench):
    log = bench.receive_into("commands", slice_ms=200)
    for body in (b"1", b"{no", b"\xff", b"2"):
        log.send(body)
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/3"]
    assert bench.query("select event_id, body, code from tide.dead_letter order by event_id") == [
        ("commands/1", b"{no", "refused"),
        ("commands/2", b"\xff", "not_utf8"),
    ]
    assert log.acknowledged == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [b"{no", b"\xff"], ids=["refused by PostgreSQL", "not decoded"])
def test_a_bad_message_may_stop_the_pipeline_and_loses_nothing(bench, bad):
    log = bench.receive_into("commands", slice_ms=200, on_invalid="stop")
    for body in (b"1", bad, b"2"):
        log.send(body)
    for _ in range(2):
        assert bench.drain() == "failed"
        assert bench.event_ids() == ["commands/0"]
    assert bench.query("select count(*) from tide.dead_letter") == [(0,)]
    assert "commands/1" in bench.last("error")
    assert log.acknowledged == {0}
    bench.receive_into("commands", slice_ms=200)
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0", "commands/2"]


def test_a_drain_resumes_from_the_position_even_if_no_acknowledgement_arrived(bench):
    log = bench.receive_into("commands", slice_ms=200)
    log.send(b"1")
    bench.drain()
    log.acknowledged.clear()
    bench.resources.sources.close()
    log.send(b"2")
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/1"]
    assert bench.query("select position from tide.position") == [("1",)]


def test_a_source_is_kept_between_drains_but_not_if_another_worker_drained_meanwhile(bench):
    bench.receive_into("commands", slice_ms=50)
    bench.drain()
    [(_, first)] = bench.resources.sources._idle.values()
    bench.drain()
    [(_, again)] = bench.resources.sources._idle.values()
    assert again is first
    bench.numbers["p"] += 1  # another worker had the drain between
    bench.drain()
    [(_, new)] = bench.resources.sources._idle.values()
    assert new is not first


def test_a_source_that_is_down_fails_the_drain_and_works_later(bench):
    log = bench.receive_into("commands", slice_ms=200)
    log.send(b"1")
    log.stop()
    assert bench.drain() == "failed"
    assert bench.last("error_code") == "not_connected"
    log.start()
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0"]


def test_a_source_lost_in_the_middle_keeps_what_was_received(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    log.send(b"1")
    with bench.draining():
        wait_until(lambda: bench.event_ids() == ["commands/0"], 10, "the first is in the inbox")
        log.stop()
    assert bench.last("outcome") == "failed"
    assert not bench.resources.sources._idle


def test_a_disabled_pipeline_stops_receiving(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    with bench.draining():
        log.send(b"1")
        wait_until(lambda: bench.event_ids() == ["commands/0"], 10, "the drain is under way")
        bench.query("select tide.relay_disable('p')")
        wait_until(lambda: bench.last("lease_until") is None, 5, "it has noticed, though nothing comes")
        log.send(b"2")
    assert bench.event_ids() == ["commands/0"]


def test_a_drain_that_was_given_up_stops_waiting(bench):
    log = bench.receive_into("commands", slice_ms=20_000)
    with bench.draining() as waiting:
        log.send(b"1")
        wait_until(lambda: bench.event_ids() == ["commands/0"], 10, "the drain is under way")
        bench.query("update tide.drain set epoch = epoch + 1")
        waiting.join(5)
        assert not waiting.is_alive()


def test_a_drain_that_waits_asks_for_changes_once_a_second_at_most(bench):
    checks = []

    class Counting(Writer):
        def check_pipeline(self):
            checks.append(time.monotonic())
            super().check_pipeline()

    bench.receive_into("commands", slice_ms=3500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reverse, "Writer", Counting)
        assert bench.drain() == "more"
    assert 1 <= len(checks) <= 3
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(checks))


# Sharing threads -----------------------------------------------------------------------------------------------------


def test_one_thread_never_waits(database):
    bench = Bench(database, threads=2)
    try:
        bench.receive_into("commands", "p", slice_ms=20_000)
        bench.receive_into("others", "q", slice_ms=20_000)
        with bench.draining("p"):
            wait_until(lambda: bench.resources.wait_slots._free == 0, 10, "one waits")
            began = time.monotonic()
            assert bench.drain("q") == "later"
            assert time.monotonic() - began < 5
        assert bench.last("outcome", "p") == "later", "a waiting drain makes room for one that was turned away"
        with bench.draining("q"):
            wait_until(lambda: bench.resources.wait_slots._free == 0, 10, "who was turned away waits next")
            bench.resources.stop.set()
    finally:
        bench.close()


def test_whoever_waits_gives_its_thread_to_a_drain_that_has_none(database):
    queued = threading.Event()
    bench = Bench(database, others_wait=queued.is_set)
    try:
        bench.receive_into("commands", slice_ms=60_000)
        with bench.draining():
            wait_until(lambda: bench.resources.wait_slots._free < 3, 10, "it waits")
            queued.set()
        assert bench.last("outcome") == "later"
    finally:
        bench.close()
        forget("commands")
