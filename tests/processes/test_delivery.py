"""From a publish in SQL to the sink, through a real scheduler and real workers that nobody harms."""

from tests.waiting import wait_until


def test_what_is_published_is_delivered_in_order(fleet, pipelines):
    pipelines.make("orders")
    fleet.scheduler(), fleet.workers()
    ids = [i for _ in range(10) for i in pipelines.publish("orders", 50)]
    wait_until(lambda: pipelines.has("orders", ids), 30, "all are delivered")
    assert pipelines.delivered("orders") == ids
