"""A pipeline that is claimed while a drain of an epoch before is under way goes on as soon as that drain has ended.

The lease is ten minutes: a pipeline that waits for it does not pass in time.
"""

import pytest

from tests.waiting import wait_until

LEASE = {"visibility_timeout_ms": 600_000, "timeout_ms": 60_000, "slice_ms": 60_000}
CHANGES = ["enabled_again", "enabled_at_once", "reconfigured", "made_again"]


def hold(pipelines, *names: str) -> dict[str, int]:
    """Each is in the middle of a drain that does not end, of the epoch returned."""
    for name in names:
        pipelines.make(name, **LEASE)
        pipelines.control(name, held=True)
        pipelines.publish(name, 3)
    for name in names:
        pipelines.wait_attempts(name)
    return {name: pipelines.drain(name)["epoch"] for name in names}


def goes_on(pipelines, name: str, before: dict[str, int]) -> None:
    ids = pipelines.publish(name, 3)
    pipelines.control(name)
    pipelines.wait_delivered(name, ids, 10)
    wait_until(lambda: pipelines.settled(name), 10, f"{name} has settled everything")
    wait_until(lambda: pipelines.drain(name)["epoch"] > before[name], 10, f"the owner of now has claimed {name}")


def test_a_changed_pipeline_goes_on_when_the_drain_from_before_has_ended(fleet, pipelines):
    scheduler, _ = fleet.scheduler(), fleet.workers(threads=len(CHANGES) + 1)
    fleet.wait_ready()
    before = hold(pipelines, *CHANGES)
    pipelines.run("select tide.relay_disable('enabled_again')")
    wait_until(lambda: scheduler.owned() == len(CHANGES) - 1, 10, "the disabled one is let go")
    pipelines.run("select tide.relay_enable('enabled_again')")
    with pipelines.connect() as connection, connection.transaction():
        connection.execute("select tide.relay_disable('enabled_at_once'), tide.relay_enable('enabled_at_once')")
        connection.execute("select tide.relay_delete('made_again')")
    pipelines.set("made_again", **LEASE)
    pipelines.set("reconfigured", label="new", **LEASE)
    wait_until(lambda: scheduler.says("pipeline=reconfigured revision"), 10, "the change is known")
    wait_until(lambda: scheduler.owned() == len(CHANGES), 10, "all are owned")
    for name in CHANGES:
        goes_on(pipelines, name, before)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_pipeline_of_a_killed_scheduler_goes_on_when_the_drain_that_it_emitted_has_ended(fleet, pipelines, ends):
    first, _ = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    before = hold(pipelines, "orders")
    first.kill()
    second = fleet.scheduler()
    wait_until(lambda: second.owned() == 1, 30, "another one owns it")
    if ends == "badly":
        pipelines.control("orders", down=True)
        pipelines.wait_outcome("orders", "failed")
    goes_on(pipelines, "orders", before)
