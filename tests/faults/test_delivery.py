"""From a publish in SQL to the sink, through a real scheduler and real workers, without faults: one fleet for all."""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import SchedulerProcess, WorkersProcess, running_fleet
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("delivery")
HOUR_MS = 3_600_000


@dataclass
class Shared:
    scheduler: SchedulerProcess
    workers: WorkersProcess
    pipelines: Pipelines


@pytest.fixture(scope="module")
def _shared(_postgres18, _redis, tmp_path_factory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("delivery")
    _postgres18.start()
    _redis.start()
    database = _postgres18.create_database()
    with running_fleet(database.fleet_url(), _redis.url, folder / "fleet") as fleet:
        made = Shared(fleet.scheduler(), fleet.workers(), Pipelines(database.url, folder / "delivered"))
        fleet.wait_ready()
        yield made
    _postgres18.drop_database(database)


@pytest.fixture
def running(_shared: Shared) -> tuple[SchedulerProcess, WorkersProcess]:
    """One scheduler and one process of workers. Their metrics go on from test to test."""
    return _shared.scheduler, _shared.workers


@pytest.fixture
def pipelines(_shared: Shared) -> Iterator[Pipelines]:
    """None yet, in their database."""
    yield _shared.pipelines
    _shared.pipelines.clear()


def test_what_is_published_is_delivered_in_order_and_rolled_back_messages_are_not(running, pipelines):
    pipelines.make("orders")
    with Writers(pipelines, ["orders"], 1000) as writers:
        wait_until(lambda: writers.published > 1500 and writers.rolled_back, 20, "1,500 messages are published")
    pipelines.wait_settled()
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == 0, verdict
    assert verdict.published == writers.published


def test_an_idle_pipeline_is_woken_by_the_bell_alone(running, pipelines):
    scheduler, _ = running
    pipelines.make("orders", poll_interval_ms=HOUR_MS)
    pipelines.wait_outcome("orders")  # it has heard that those of other tests are gone
    by_timer, by_bell = ({"name": "tide_relay_wakeups_total", "cause": cause} for cause in ("timer", "bell"))
    before = scheduler.metric(**by_timer), scheduler.metric(**by_bell)
    for _ in range(20):
        ids = pipelines.publish("orders")
        pipelines.wait_delivered("orders", ids, 5)
        pipelines.wait_outcome("orders")
    assert scheduler.metric(**by_timer) == before[0]
    assert scheduler.metric(**by_bell) > before[1]


def test_several_groups_each_receive_all_of_one_outbox(running, pipelines):
    pipelines.make("left", "orders", poll_interval_ms=HOUR_MS)
    pipelines.make("right", "orders", poll_interval_ms=HOUR_MS)
    ids = [number for _ in range(20) for number in pipelines.publish("orders", 3)]
    for name in ("left", "right"):
        pipelines.wait_delivered(name, ids, 10)
        assert pipelines.delivered(name) == ids


def test_a_slow_publisher_holds_the_horizon_without_a_polling_storm(running, pipelines):
    scheduler, _ = running
    pipelines.make("stalled", poll_interval_ms=400)
    pipelines.wait_outcome("stalled")
    with pipelines.connect() as slow, slow.transaction():
        [(first,)] = slow.execute("select tide.outbox_publish('stalled', '1')").fetchall()
        second = pipelines.publish("stalled")
        stalls = lambda: scheduler.metric("tide_relay_horizon_stalls_total", pipeline="stalled")  # noqa: E731
        wait_until(lambda: stalls() >= 9, 10, "the drains look again and again")
        since, before = time.monotonic(), stalls()
        wait_until(lambda: stalls() >= before + 3, 10, "three more looks")
        assert time.monotonic() - since > 0.4, "by now it looks at most every poll interval"
        assert pipelines.delivered("stalled") == []
        wait_until(lambda: scheduler.metric("tide_relay_oldest_publisher_seconds") > 0, 10, "its age is shown")
    committed_at = time.monotonic()
    pipelines.wait_delivered("stalled", second, 5)
    assert time.monotonic() - committed_at < 2
    assert pipelines.delivered("stalled") == [first, *second]


def test_a_prepared_transaction_is_delivered_once_it_commits(running, pipelines):
    pipelines.make("orders")
    with pipelines.connect() as connection:
        connection.execute("begin; set local tide.two_phase = 'on'; select tide.outbox_publish('orders', '1')")
        connection.execute("prepare transaction 'payment'")
        later = pipelines.publish("orders")
        pipelines.wait_outcome("orders", "again")
        assert pipelines.delivered("orders") == []
        connection.execute("commit prepared 'payment'")
    pipelines.wait_delivered("orders", later, 10)
    assert pipelines.delivered("orders") == [later[0] - 1, *later]


def test_a_temporary_failure_in_a_batch_keeps_the_order(running, pipelines):
    pipelines.make("orders")
    stop_at = 25
    pipelines.control("orders", stop_at=stop_at)
    ids = pipelines.publish("orders", 50)
    wait_until(lambda: pipelines.drain("orders")["error_code"] == "not_now", 20, "the batch has stopped")
    wait_until(lambda: pipelines.drain("orders")["offset_id"] == stop_at - 1, 20, "what went before is settled")
    pipelines.control("orders")
    pipelines.wait_delivered("orders", ids, 40)
    assert pipelines.delivered("orders") == ids


def test_a_message_refused_for_good_becomes_a_dead_letter_and_its_neighbours_arrive(running, pipelines):
    _, workers = running
    pipelines.make("refused")
    pipelines.control("refused", refuse=[7, 8, 30])
    ids = pipelines.publish("refused", 40)
    pipelines.wait_settled()
    assert pipelines.delivered("refused") == [number for number in ids if number not in (7, 8, 30)]
    assert pipelines.dead_letters("refused") == [7, 8, 30]
    [(code, reason, payload)] = pipelines.run(
        "select code, reason, payload::text from tide.dead_letter where message_id = 7"
    )
    assert (code, reason, payload) == ("refused", "the test refuses it", '{"n": 1}')
    wait_until(lambda: workers.metric("tide_relay_dead_letters_total", pipeline="refused") == 3, 10, "they are counted")


def test_health_and_metrics_tell_what_is_owned_and_how_far_it_lags(running, pipelines):
    scheduler, workers = running
    pipelines.make("lagging")
    pipelines.control("lagging", down=True)
    pipelines.publish("lagging", 30)
    labels = {"pipeline": "lagging", "direction": "forward", "sink_type": "recording"}
    wait_until(lambda: scheduler.metric("tide_relay_lag_messages", **labels) == 30, 20, "the lag is seen")
    assert scheduler.metric("tide_relay_lag_seconds", **labels) > 0
    assert scheduler.get("/health")[0] == 200
    healthy = r'\{"status":"healthy","pipelines_owned":1,"uptime_seconds":\d+\}'
    wait_until(lambda: re.fullmatch(healthy, scheduler.get("/health")[1]), 20, "it owns no other any more")
    pipelines.control("lagging")
    wait_until(lambda: scheduler.metric("tide_relay_lag_messages", **labels) == 0, 60, "the lag is gone")
    assert scheduler.metric("tide_relay_lag_seconds", **labels) == 0
    assert workers.metric("tide_relay_messages_published_total", **labels) == 30
    assert workers.metric("tide_relay_failures_total", **labels, code="not_connected") > 0


def test_a_publisher_in_repeatable_read_wakes_a_sleeping_pipeline(running, pipelines):
    pipelines.make("orders", poll_interval_ms=HOUR_MS)
    with pipelines.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            connection.execute("select 1")  # its snapshot is from here
            pipelines.wait_outcome("orders")
            [(number,)] = connection.execute("select tide.outbox_publish('orders', '1')").fetchall()
    pipelines.wait_delivered("orders", [number], 5)


def test_concurrent_publishers_wake_a_pipeline_every_time_without_the_timer(running, pipelines):
    pipelines.make("orders", poll_interval_ms=HOUR_MS)
    writers = [threading.Thread(target=lambda: [pipelines.publish("orders") for _ in range(20)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    pipelines.wait_delivered("orders", pipelines.committed("orders"), 10)
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.published == 80, verdict
