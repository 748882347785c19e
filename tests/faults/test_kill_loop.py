"""A short kill loop. The long one is `make kill-loop`."""

import random

from tests.faults.kill_loop import run, table


def test_kill_loop_for_twenty_seconds(fleet, pipelines, record_property):
    seed = random.randrange(10_000)
    outcome = run(fleet, pipelines, seconds=20, count=8, rate=800, seed=seed)
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.faults.total() >= 3
