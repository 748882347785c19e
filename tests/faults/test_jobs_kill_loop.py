"""A short kill loop with jobs. The long one is part of `make kill-loop`."""

import random

from tests.faults.jobs_kill_loop import run, table


def test_kill_loop_with_jobs_for_fifteen_seconds(database, postgres, redis_server, fleet, tmp_path):
    seed = random.randrange(10_000)
    outcome = run(database, postgres, redis_server, fleet, tmp_path, seconds=15, rate=100, seed=seed)
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.enqueued
    assert outcome.faults.total() >= 3
