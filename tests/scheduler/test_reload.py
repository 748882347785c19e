"""A change made in SQL takes effect in a fleet that runs."""

import pytest

from tests.faults.audit import read_publishes
from tests.fleets.pipelines import Writers
from tests.waiting import wait_until

TAKES_EFFECT_SECONDS = 3


@pytest.fixture
def scheduler(fleet):
    scheduler, _ = fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1h"), fleet.workers()
    fleet.wait_ready()
    return scheduler


def last_label(pipelines, name: str) -> str:
    publishes = read_publishes(pipelines.folder, name)
    return publishes[-1].label if publishes else ""


def test_a_running_pipeline_is_drained_under_its_new_configuration_from_the_next_batch(scheduler, pipelines):
    pipelines.make("orders", label="old", slice_ms=60_000)
    with Writers(pipelines, ["orders"], 500):
        wait_until(lambda: last_label(pipelines, "orders") == "old", 20, "it runs")
        pipelines.set("orders", label="new", slice_ms=60_000)
        wait_until(lambda: last_label(pipelines, "orders") == "new", TAKES_EFFECT_SECONDS, "the new label is used")
    pipelines.wait_settled()
    labels = [publish.label for publish in read_publishes(pipelines.folder, "orders")]
    assert labels == sorted(labels, reverse=True), "once new, never old again"
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == 0, verdict


def test_a_pipeline_with_another_sink_leaves_no_series_of_the_old_one(fleet, pipelines):
    """Without workers, so that there is a lag that would not change."""
    scheduler = fleet.scheduler(TEST_MEASURE_SECONDS="0.2")
    pipelines.make("orders")
    pipelines.make("witness")
    pipelines.publish("orders", 3)

    def lag(**labels):
        return scheduler.metric("tide_relay_lag_messages", **labels)

    wait_until(lambda: lag(pipeline="orders", sink_type="recording") == 3, 60, "the lag is told")
    pipelines.set("orders", sink_type="file", path=str(pipelines.folder / "orders.jsonl"))
    wait_until(lambda: lag(pipeline="orders", sink_type="file") == 3, 60, "it is told of the new sink")
    told = [line for line in scheduler.get("/metrics")[1].splitlines() if 'sink_type="recording"' in line]
    assert told and all('pipeline="witness"' in line for line in told)


def test_disable_stops_enable_goes_on_where_it_was_and_delete_ends(scheduler, pipelines):
    pipelines.make("orders")
    pipelines.wait_delivered("orders", pipelines.publish("orders", 5))
    pipelines.run("select tide.relay_disable('orders')")
    wait_until(lambda: scheduler.owned() == 0, TAKES_EFFECT_SECONDS, "it is let go")
    ids = pipelines.publish("orders", 5)
    pipelines.make("witness")
    pipelines.wait_delivered("witness", pipelines.publish("witness"))
    assert pipelines.delivered("orders") == [1, 2, 3, 4, 5]
    pipelines.run("select tide.relay_enable('orders')")
    pipelines.wait_delivered("orders", ids, TAKES_EFFECT_SECONDS)
    assert pipelines.delivered("orders") == list(range(1, 11))
    pipelines.run("select tide.relay_delete('orders')")
    wait_until(lambda: scheduler.owned() == 1, TAKES_EFFECT_SECONDS, "it is let go")


def test_disable_stops_a_drain_in_the_middle_of_a_backlog(scheduler, pipelines):
    pipelines.make("orders", slice_ms=60_000)
    pipelines.control("orders", delay_ms=100)
    pipelines.publish("orders", 5000)
    pipelines.wait_attempts("orders", 3)
    pipelines.run("select tide.relay_disable('orders')")
    wait_until(lambda: pipelines.drain("orders")["leased"] is None, TAKES_EFFECT_SECONDS, "the drain has ended")
    row, done = pipelines.drain("orders"), pipelines.delivered("orders")
    assert row["offset_id"] == len(done) < 5000
    assert row["outcome"] == "more"


def test_a_change_whose_notification_was_lost_is_found_by_discovery(fleet, pipelines):
    pipelines.make("orders", label="old")
    fleet.scheduler("", "--discovery-interval", "500ms"), fleet.workers()
    pipelines.wait_delivered("orders", pipelines.publish("orders"), 30)
    pipelines.run(
        """update tide.pipeline set config = config || '{"label": "new"}', revision = nextval('tide.revisions')"""
    )
    wait_until(
        lambda: pipelines.publish("orders") and last_label(pipelines, "orders") == "new", 5, "the new label is used"
    )


def test_an_invalid_pipeline_is_shown_stops_no_other_and_is_cured_by_a_better_configuration(scheduler, pipelines):
    pipelines.make("fine")
    pipelines.make("wrong", batch_sise=5)
    shown = "select status, reason from tide.relay_list_configs() where name = 'wrong'"
    wait_until(lambda: pipelines.run(shown)[0][0] == "invalid", 5, "it is shown as invalid")
    assert "did you mean batch_size" in pipelines.run(shown)[0][1]
    wait_until(lambda: scheduler.metric("tide_relay_pipelines_invalid") == 1, 5, "it is counted")
    assert scheduler.owned() == 1
    pipelines.wait_delivered("fine", pipelines.publish("fine"))
    ids = pipelines.publish("wrong")
    pipelines.set("wrong", batch_size=5)
    pipelines.wait_delivered("wrong", ids, TAKES_EFFECT_SECONDS)
    assert pipelines.run(shown) == [("enabled", None)]
    wait_until(lambda: scheduler.metric("tide_relay_pipelines_invalid") == 0, 5, "it is not counted any more")


@pytest.mark.parametrize("together", [True, False], ids=["in one transaction", "one after the other"])
def test_a_pipeline_made_again_under_its_name_is_a_new_one(scheduler, pipelines, together):
    pipelines.make("orders", label="old")
    ids = pipelines.publish("orders", 5)
    pipelines.wait_delivered("orders", ids)
    pipelines.wait_outcome("orders")
    with pipelines.connect() as connection:
        connection.autocommit = not together
        connection.execute("select tide.relay_delete('orders')")
        config = f'{{"sink_type": "recording", "folder": "{pipelines.folder}", "label": "new"}}'
        connection.execute("select tide.relay_set_outbox('orders', 'orders', %s::jsonb)", [config])
    wait_until(lambda: last_label(pipelines, "orders") == "new", TAKES_EFFECT_SECONDS, "the new one is drained")
    pipelines.wait_settled()
    assert pipelines.delivered("orders") == ids + ids, "it begins at the first message"


def test_a_new_configuration_does_not_wait_for_the_retry_of_the_old_one(scheduler, pipelines):
    pipelines.make("orders", token="${env:TIDE_SECRET_NOT_THERE}")
    ids = pipelines.publish("orders")
    wait_until(lambda: pipelines.drain("orders")["failures"] >= 5, 60, "it has failed five times")
    pipelines.set("orders", token="there")
    pipelines.wait_delivered("orders", ids, TAKES_EFFECT_SECONDS)
