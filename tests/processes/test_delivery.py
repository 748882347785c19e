"""From a publish in SQL to the sink, through a real scheduler and real workers that nobody harms."""

import re
import threading
import time

import psycopg
import pytest

from tests.processes.audit import read_publishes
from tests.processes.pipelines import Writers
from tests.waiting import wait_until

HOUR_MS = 3_600_000


@pytest.fixture
def running(fleet):
    """One scheduler and one process of workers, ready."""
    scheduler, workers = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    return scheduler, workers


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
    for _ in range(20):
        ids = pipelines.publish("orders")
        pipelines.wait_delivered("orders", ids, 5)
        pipelines.wait_outcome("orders")
    assert scheduler.metric("tide_relay_wakeups_total", cause="timer") == 0
    assert scheduler.metric("tide_relay_wakeups_total", cause="bell") > 0


def test_several_groups_each_receive_all_of_one_outbox(running, pipelines):
    pipelines.make("left", "orders", poll_interval_ms=HOUR_MS)
    pipelines.make("right", "orders", poll_interval_ms=HOUR_MS)
    ids = [number for _ in range(20) for number in pipelines.publish("orders", 3)]
    for name in ("left", "right"):
        pipelines.wait_delivered(name, ids, 10)
        assert pipelines.delivered(name) == ids


def test_a_slow_publisher_holds_the_horizon_without_a_polling_storm(running, pipelines):
    scheduler, _ = running
    pipelines.make("orders", poll_interval_ms=400)
    pipelines.wait_outcome("orders")
    with pipelines.connect() as slow, slow.transaction():
        [(first,)] = slow.execute("select tide.outbox_publish('orders', '1')").fetchall()
        second = pipelines.publish("orders")
        stalls = lambda: scheduler.metric("tide_relay_horizon_stalls_total", pipeline="orders")  # noqa: E731
        wait_until(lambda: stalls() >= 9, 10, "the drains look again and again")
        since, before = time.monotonic(), stalls()
        wait_until(lambda: stalls() >= before + 3, 10, "three more looks")
        assert time.monotonic() - since > 0.4, "by now it looks at most every poll interval"
        assert pipelines.delivered("orders") == []
        wait_until(lambda: scheduler.metric("tide_relay_oldest_publisher_seconds") > 0, 10, "its age is shown")
    committed_at = time.monotonic()
    pipelines.wait_delivered("orders", second, 5)
    assert time.monotonic() - committed_at < 2
    assert pipelines.delivered("orders") == [first, *second]


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


def test_a_sink_that_is_down_is_tried_at_growing_intervals_and_holds_no_thread(fleet, pipelines):
    fleet.scheduler(), fleet.workers(threads=1)
    pipelines.make("broken")
    pipelines.make("fine")
    pipelines.control("broken", down=True)
    ids = pipelines.publish("broken", 10)
    wait_until(lambda: pipelines.drain("broken")["failures"] >= 4, 60, "it has failed four times")
    for _ in range(5):  # the only thread is free between the tries
        other = pipelines.publish("fine")
        pipelines.wait_delivered("fine", other, 2)
    row = pipelines.drain("broken")
    assert (row["outcome"], row["error_code"], row["leased"]) == ("failed", "not_connected", None)
    assert "is down" in row["error"]
    assert row["retry_at"] > row["ended_at"]
    pipelines.control("broken", down=False)
    pipelines.wait_delivered("broken", ids, 40)
    wait_until(lambda: pipelines.drain("broken")["failures"] == 0, 10, "success resets the failures")
    assert pipelines.delivered("broken") == ids


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
    pipelines.make("orders")
    pipelines.control("orders", refuse=[7, 8, 30])
    ids = pipelines.publish("orders", 40)
    pipelines.wait_settled()
    assert pipelines.delivered("orders") == [number for number in ids if number not in (7, 8, 30)]
    assert pipelines.dead_letters("orders") == [7, 8, 30]
    [(code, reason, payload)] = pipelines.run(
        "select code, reason, payload::text from tide.dead_letter where message_id = 7"
    )
    assert (code, reason, payload) == ("refused", "the test refuses it", '{"n": 1}')
    wait_until(lambda: workers.metric("tide_relay_dead_letters_total") == 3, 10, "they are counted")


def test_many_pipelines_on_few_threads_all_progress(fleet, pipelines):
    names = [f"pipeline{number}" for number in range(12)]
    for name in names:
        pipelines.make(name, visibility_timeout_ms=2000, slice_ms=200, batch_size=10)
        pipelines.control(name, delay_ms=20)
    fleet.scheduler(), fleet.workers(threads=2)
    fleet.wait_ready()
    for name in names:
        pipelines.publish(name, 200)
    wait_until(lambda: all(pipelines.delivered(name) for name in names), 30, "each has something")
    assert not pipelines.settled(names[0]) or not pipelines.settled(names[-1]), "nobody had to wait for another's end"
    pipelines.wait_settled()
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_secrets_are_resolved_where_they_are_used_and_shown_nowhere(fleet, pipelines, tmp_path):
    secret = "open-sesame-4711"
    scheduler = fleet.scheduler("", "--log-level", "debug")
    workers = fleet.workers(SINK_TOKEN=secret, RELAY_LOG_LEVEL="debug")
    pipelines.make("orders", token="${env:SINK_TOKEN}", label="${env:SINK_TOKEN}")
    pipelines.make("missing", token="${env:NOT_THERE}")
    ids = pipelines.publish("orders", 5)
    pipelines.publish("missing")
    pipelines.wait_delivered("orders", ids, 30)
    publish, *_ = read_publishes(pipelines.folder, "orders")
    assert (publish.token_length, publish.label) == (len(secret), secret)
    wait_until(lambda: pipelines.drain("missing")["error_code"] == "config", 20, "the other one fails")
    assert "NOT_THERE" in pipelines.drain("missing")["error"]
    shown = scheduler.text() + workers.text() + scheduler.get("/metrics")[1] + workers.get("/metrics")[1]
    listed = str(pipelines.run("select c::text, d::text from tide.relay_list_configs() c, tide.drain d"))
    assert "orders" in shown and "SINK_TOKEN" in listed
    assert secret not in shown + listed


def test_health_and_metrics_tell_what_is_owned_and_how_far_it_lags(running, pipelines):
    scheduler, workers = running
    pipelines.make("orders")
    pipelines.control("orders", down=True)
    pipelines.publish("orders", 30)
    labels = {"pipeline": "orders", "direction": "forward", "sink_type": "recording"}
    wait_until(lambda: scheduler.metric("tide_relay_lag_messages", **labels) == 30, 20, "the lag is seen")
    assert scheduler.metric("tide_relay_lag_seconds", **labels) > 0
    status, body = scheduler.get("/health")
    assert status == 200
    assert re.fullmatch(r'\{"status":"healthy","pipelines_owned":1,"uptime_seconds":\d+\}', body)
    pipelines.control("orders")
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
