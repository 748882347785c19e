"""A queue for each direction, workers for some of them only, and what the scheduler tells of drains that wait."""

import pytest

from relay.broker.queues import DRAIN_QUEUES, MAINTENANCE_QUEUE
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import running_fleet
from tests.waiting import wait_until
from tests.workers.test_reverse import Receiving

FORWARD, REVERSE = DRAIN_QUEUES["forward"], DRAIN_QUEUES["reverse"]
SOON = 60
pytestmark = pytest.mark.timeout(400)
# A drain that no worker takes is emitted again after so long: no test here may depend on that.
LEASE = {"visibility_timeout_ms": 600_000}
OFTEN = {"TEST_MEASURE_SECONDS": "0.2"}


def waiting(scheduler, queue):
    return scheduler.metric("tide_relay_drains_waiting", queue=queue)


def deliver_both_ways(fleet, pipelines, redis_url):
    """Workers for one direction do nothing for the other."""
    scheduler, forward = fleet.scheduler(**OFTEN), fleet.workers("forward", "--queues", FORWARD)
    receiving = Receiving(pipelines, redis_url)
    receiving.make("commands", **LEASE)
    pipelines.make("orders", **LEASE)
    pipelines.wait_delivered("orders", pipelines.publish("orders", 3), SOON)
    receiving.send("commands", *range(3))
    wait_until(lambda: waiting(scheduler, REVERSE) == 1, SOON, "the reverse drain waits for workers")
    assert receiving.payloads("commands") == []
    wait_until(lambda: waiting(scheduler, FORWARD) == 0, SOON, "no forward drain waits")
    fleet.workers("reverse", "--queues", REVERSE, threads=1)
    receiving.wait_for("commands", 3, SOON)
    wait_until(lambda: waiting(scheduler, REVERSE) == 0, SOON, "the reverse drain is begun")
    forward.terminate()
    forward.wait_exit()
    pipelines.publish("orders")
    wait_until(lambda: waiting(scheduler, FORWARD) == 1, SOON, "the forward drain waits for workers")


def test_each_direction_can_have_workers_of_its_own(fleet, pipelines, redis_server):
    deliver_both_ways(fleet, pipelines, redis_server.url)


def test_each_direction_can_have_workers_of_its_own_on_rabbitmq(database, redis_server, rabbitmq_server, tmp_path):
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    with running_fleet(database.fleet_url(), rabbitmq_server.url, tmp_path / "fleet") as fleet:
        deliver_both_ways(fleet, pipelines, redis_server.url)
        for process in filter(lambda each: each.is_running, fleet.processes):
            process.terminate()
            process.wait_exit()


def test_workers_refuse_a_queue_that_there_is_not(fleet):
    workers = fleet.workers("workers", "--queues", "tide.foward")
    assert workers.wait_exit(SOON) != 0
    known = "tide.forward, tide.reverse, tide.jobs, tide.streams, tide.maintenance"
    assert workers.says(f"there is no queue tide.foward; known: {known}")


def test_pipelines_that_nobody_owns_are_told_by_group(fleet, pipelines):
    pipelines.make("orders")
    pipelines.make("lost", relay_group_id="misspelt")
    scheduler = fleet.scheduler(**OFTEN)

    def unowned(group):
        return scheduler.metric("tide_relay_pipelines_unowned", relay_group_id=group)

    wait_until(lambda: unowned("misspelt") == 1, SOON, "the pipeline of a group without scheduler is told")
    wait_until(lambda: unowned("") == 0, SOON, "the other one is owned")
    assert 'relay_group_id="default"' in scheduler.get("/metrics")[1]
    pipelines.run("select tide.relay_delete('lost')")
    wait_until(lambda: "misspelt" not in scheduler.get("/metrics")[1], SOON, "a group that is gone leaves no series")


def test_the_age_of_maintenance_grows_until_workers_do_it(fleet, pipelines):
    pipelines.make("orders")
    scheduler = fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="250ms")

    def age():
        return scheduler.metric("tide_relay_maintenance_age_seconds")

    wait_until(lambda: age() > 3, SOON, "no worker does it")
    fleet.workers("maintenance", "--queues", MAINTENANCE_QUEUE)
    wait_until(lambda: 0 < age() < 2, SOON, "it was done")
    with pipelines.connect() as reader:
        reader.execute("begin; select from tide.outbox for no key update")
        wait_until(lambda: age() > 4, SOON, "a session is in the way of each turn")
        reader.execute("rollback")
    wait_until(lambda: age() < 2, SOON, "it was done again")
