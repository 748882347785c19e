"""A short kill loop. The long one is `make kill-loop`."""

import random

import pytest

from relay.local.server_process import free_port
from tests.faults.kill_loop import LEAST_FAULTS, run, table


def test_a_short_kill_loop(fleet, pipelines, record_property):
    seed = random.randrange(10_000)
    outcome = run(fleet, pipelines, seconds=10, count=8, rate=800, seed=seed, pauses=(0.5, 2.5))
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.faults.total() >= LEAST_FAULTS


def test_a_fleet_of_which_nothing_is_ready_is_waited_for_and_then_named(fleet):
    nowhere = f"postgresql://app@127.0.0.1:{free_port()}/none"
    scheduler = fleet.scheduler("waits", RELAY_POSTGRES_URL=nowhere)
    with pytest.raises(pytest.fail.Exception, match="until one of waits is ready; their logs are in"):
        fleet.wait_for_one(0.1)
    scheduler.kill()
    with pytest.raises(AssertionError, match="waits ended with -9"):
        fleet.wait_for_one()
