"""From a publish in SQL to the sink, through fleets that a test makes for itself: few threads, secrets, a sink down."""

from tests.faults.audit import read_publishes
from tests.waiting import wait_until


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
    assert not pipelines.settled(names[0]) or not pipelines.settled(names[-1]), "none had to wait for another's end"
    pipelines.wait_settled()
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_secrets_are_resolved_where_they_are_used_and_shown_nowhere(fleet, pipelines, tmp_path):
    secret = "open-sesame-4711"
    scheduler = fleet.scheduler("", "--log-level", "debug")
    workers = fleet.workers(TIDE_SECRET_SINK_TOKEN=secret, RELAY_LOG_LEVEL="debug")
    pipelines.make("orders", token="${env:TIDE_SECRET_SINK_TOKEN}", label="${env:TIDE_SECRET_SINK_TOKEN}")
    pipelines.make("missing", token="${env:TIDE_SECRET_NOT_THERE}")
    ids = pipelines.publish("orders", 5)
    pipelines.publish("missing")
    pipelines.wait_delivered("orders", ids, 30)
    publish, *_ = read_publishes(pipelines.folder, "orders")
    assert (publish.token_length, publish.label) == (len(secret), secret)
    wait_until(lambda: pipelines.drain("missing")["error_code"] == "config", 20, "the other one fails")
    assert "TIDE_SECRET_NOT_THERE" in pipelines.drain("missing")["error"]
    shown = scheduler.text() + workers.text() + scheduler.get("/metrics")[1] + workers.get("/metrics")[1]
    listed = str(pipelines.run("select c::text, d::text from tide.relay_list_configs() c, tide.drain d"))
    assert "orders" in shown and "TIDE_SECRET_SINK_TOKEN" in listed
    assert secret not in shown + listed
