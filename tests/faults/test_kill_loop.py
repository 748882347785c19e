"""A short kill loop. The long one is `make kill-loop`."""

import random

from tests.faults.kill_loop import run, table


def test_a_short_kill_loop(fleet, pipelines, record_property):
    seed = random.randrange(10_000)
    outcome = run(fleet, pipelines, seconds=10, count=8, rate=800, seed=seed, pauses=(0.5, 2.5))
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.faults.total() >= 3
