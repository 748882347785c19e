"""A fleet on a schema that is newer than it: it works on if that is compatible, and refuses clearly if not."""

import pytest

LATER = "9999"
SAYS = "with which this version cannot work; upgrade tide-relay"


def migrate_further(pipelines, *, compatible):
    """As a later version's `relay migrate` would."""
    pipelines.run(
        "insert into tide.migration (version, name, compatible) values (%s, 'later', %s)", int(LATER), compatible
    )
    pipelines.run("select pg_notify('tide_relay_config', '')")


def test_a_running_fleet_and_a_new_one_work_on_a_compatible_schema(fleet, pipelines):
    pipelines.make("orders")
    scheduler, workers = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    migrate_further(pipelines, compatible=True)
    pipelines.wait_delivered("orders", pipelines.publish("orders", 3))
    second = fleet.scheduler()
    scheduler.terminate()
    assert scheduler.wait_exit() == 0
    second.wait_ready()
    pipelines.wait_delivered("orders", pipelines.publish("orders", 3))
    assert workers.is_running


def test_schedulers_end_as_soon_as_the_schema_is_not_theirs_any_more(fleet, pipelines):
    pipelines.make("orders")
    scheduler = fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1h")
    fleet.wait_ready()
    migrate_further(pipelines, compatible=False)
    assert scheduler.wait_exit(20) == 1
    assert scheduler.says(f"it has migration {LATER}, {SAYS}")
    late = fleet.scheduler()
    assert late.wait_exit(30) == 1
    assert late.says(SAYS)


@pytest.mark.timeout(120)
def test_old_workers_give_drains_up_and_end_and_new_ones_deliver(fleet, pipelines):
    pipelines.make("orders", visibility_timeout_ms=5000)
    migrate_further(pipelines, compatible=False)
    ids = pipelines.publish("orders", 3)
    old = fleet.workers()
    old.wait_ready()
    fleet.scheduler(TEST_KNOWS_MIGRATION=LATER)
    old.wait_exit(40)
    assert old.says(SAYS)
    assert pipelines.delivered("orders") == []
    new = fleet.workers(TEST_KNOWS_MIGRATION=LATER)
    pipelines.wait_delivered("orders", ids, 40)
    assert new.is_running
