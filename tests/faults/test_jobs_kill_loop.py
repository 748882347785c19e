"""A short kill loop with jobs. The long one is part of `make kill-loop`."""

import random

from tests.faults.jobs_kill_loop import LEAST_FAULTS, run, table


def test_a_short_kill_loop_with_jobs(database, postgres, redis_server, fleet, tmp_path):
    seed = random.randrange(10_000)
    outcome = run(database, postgres, redis_server, fleet, tmp_path, seconds=8, rate=100, seed=seed, pauses=(0.5, 2.0))
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.enqueued
    assert outcome.faults.total() >= LEAST_FAULTS
