"""Retries and replays by a real fleet."""

from tests.fleets.recording_sink import Control
from tests.waiting import wait_until


def test_a_sleeping_pipeline_is_woken_to_retry(fleet, pipelines):
    fleet.scheduler()
    fleet.workers()
    fleet.wait_ready()
    pipelines.make("orders", poll_interval_ms=3_600_000)
    Control(refuse=[2]).write(pipelines.folder, "orders")
    ids = pipelines.publish("orders", 3)
    pipelines.wait_delivered("orders", [ids[0], ids[2]], 10)
    pipelines.wait_outcome("orders")
    Control().write(pipelines.folder, "orders")
    with pipelines.connect() as connection:
        connection.execute("select tide.relay_dlq_retry('orders')")
    wait_until(lambda: ids[1] in pipelines.delivered("orders"), 10, "the dead letter is delivered")
    pipelines.wait_outcome("orders")
    with pipelines.connect() as connection:
        connection.execute("select tide.relay_replay('orders', 1)")
    wait_until(lambda: len(pipelines.delivered("orders")) == 6, 10, "the range is replayed")
