"""A short kill loop with stream tables. The long one is part of `make kill-loop`."""

import random

from tests.faults.streams_kill_loop import LEAST_FAULTS, Judge, Outcome, run, table
from tests.sql.streams.crowd import TABLES
from tests.sql.streams.streams import create, refresh


def test_a_short_kill_loop_with_stream_tables(database, fleet):
    seed = random.randrange(10_000)
    outcome = run(database, fleet, seconds=8, seed=seed, pauses=(0.5, 1.5))
    print(f"seed {seed}\n{table(outcome)}")
    assert outcome.is_right
    assert outcome.rests > LEAST_FAULTS and outcome.judged and outcome.refreshes["DIFFERENTIAL"]
    assert outcome.faults.total() >= LEAST_FAULTS


def test_a_row_that_is_wrong_is_found(database):
    outcome = Outcome()
    with database.connect() as connection:
        connection.execute(TABLES)
        connection.execute("insert into orders values (1, 'n', 1)")
        create(connection, "regions", "select region from orders")
        judge = Judge(connection, outcome)
        assert not judge.judge(), "it has not been filled yet"
        assert outcome == Outcome()
        refresh(connection, "regions")
        assert judge.judge()
        assert outcome == Outcome(judged=1)
        connection.execute("alter table regions disable trigger user")
        connection.execute("update regions set region = 's'")
        assert judge.judge()
    [wrong] = outcome.wrong
    assert wrong.startswith("public.regions: 2 rows")
    assert not outcome.is_right
