"""A fleet removes by itself what is settled, while publishers run, and nothing else."""

import pytest

from tests.fleets.pipelines import Writers
from tests.waiting import wait_until

SIZE = 1000


@pytest.fixture
def running(fleet):
    scheduler = fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="200ms")
    workers = fleet.workers()
    fleet.wait_ready()
    return scheduler, workers


def make(pipelines, outbox, *names):
    pipelines.run("select tide.outbox_create(%s, retention_hours => 0, partition_size => %s)", outbox, SIZE)
    for name in names:
        pipelines.make(name, outbox)


def first_kept(pipelines, outbox):
    """The lowest id that a partition of it may have."""
    rows = pipelines.run(
        "select min(p.first_id) from tide.outbox o, tide.outbox_partitions(o.outbox_id) p where o.name = %s", outbox
    )
    return rows[0][0]


def test_partitions_go_by_themselves_while_publishers_run_and_every_message_is_delivered(running, pipelines):
    _, workers = running
    make(pipelines, "orders", "orders")
    with Writers(pipelines, ["orders"], 1500) as writers:
        wait_until(lambda: (first_kept(pipelines, "orders") or 0) >= 2 * SIZE, 60, "partitions are gone")
    pipelines.wait_settled()
    delivered = pipelines.delivered("orders")
    assert sorted(delivered) == sorted(set(writers.confirmed["orders"]))
    assert delivered == sorted(delivered)
    assert pipelines.run("select count(*) from tide.retention_loss") == [(0,)]
    assert workers.metric("tide_relay_retention_partitions_total", outbox="orders", action="dropped") >= 2
    assert workers.metric("tide_relay_retention_lost_total") == 0


def test_what_a_disabled_pipeline_has_not_delivered_stays_until_it_has(running, pipelines):
    scheduler, _ = running
    make(pipelines, "orders", "fast", "slow")
    pipelines.run("select tide.relay_disable('slow')")
    ids = [number for _ in range(4) for number in pipelines.publish("orders", SIZE)]
    pipelines.wait_delivered("fast", ids)
    wait_until(
        lambda: scheduler.metric("tide_relay_hold_seconds_left", outbox="orders", consumer_group="slow") > 167 * 3600,
        20,
        "the scheduler shows how long it holds",
    )
    assert pipelines.committed("orders") == ids
    pipelines.run("select tide.relay_enable('slow')")
    pipelines.wait_delivered("slow", ids)
    wait_until(lambda: pipelines.committed("orders")[:1] != [1], 20, "then it goes")
    wait_until(
        lambda: "tide_relay_hold_seconds_left{" not in scheduler.get("/metrics")[1], 20, "and nothing is held any more"
    )


def test_of_two_schedulers_each_turn_is_taken_by_one_and_either_may_die(fleet, pipelines):
    first, second = (fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="200ms") for _ in range(2))
    fleet.workers()
    fleet.wait_ready()
    first.kill()
    make(pipelines, "orders", "orders")
    for _ in range(3):
        pipelines.publish("orders", SIZE)
    pipelines.wait_settled()
    wait_until(lambda: (first_kept(pipelines, "orders") or 0) >= SIZE, 20, "the other one takes the turns")
    assert second.is_running


def test_a_role_that_may_not_ask_for_it_still_delivers(fleet, pipelines):
    """As after an upgrade whose grants were not repeated."""
    rows = pipelines.run("""
        select distinct a.grantee::regrole::text from pg_class c, aclexplode(c.relacl) a
         where c.oid = 'tide.chore'::regclass and a.grantee <> c.relowner""")
    for (role,) in rows:
        pipelines.run(f"revoke all on tide.chore from {role}")
    scheduler = fleet.scheduler(RELAY_MAINTENANCE_INTERVAL="100ms")
    fleet.workers()
    pipelines.make("orders")
    pipelines.wait_delivered("orders", pipelines.publish("orders"), 40)
    wait_until(lambda: scheduler.says("nothing is removed, whatever its age"), 20, "it says so")
    assert scheduler.metric("tide_relay_database_losses_total") == 0
