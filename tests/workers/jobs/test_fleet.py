"""Jobs in a real fleet: enqueued in a transaction, run by a real worker process."""

from tests.workers.jobs.fleet import jobs, running  # noqa: F401  fixtures


def test_what_becomes_of_jobs(running):  # noqa: F811
    jobs = running  # noqa: F811
    with jobs.connection.transaction():
        good = jobs.enqueue("note", n=7)
        assert jobs.seen() == []
    assert jobs.wait(good, "succeeded", "dead_letter") == "succeeded"
    assert jobs.results(good) == ["7"]
    with jobs.connection.transaction(force_rollback=True):
        jobs.enqueue("note", n=-1)
    ids = {
        "twice": jobs.enqueue("note", fails=2),
        "always": jobs.enqueue("note", fails=9),
        "slow": jobs.enqueue("sleeps", seconds=60),
        "spins": jobs.enqueue("spins", forever=True),
        "child": jobs.enqueue("spins", forever=False),
        "nul": jobs.enqueue("says", text="a\\u0000b"),
        "surrogate": jobs.enqueue("says", text="a\\ud800b", then="raise"),
        "discarded": jobs.enqueue("says", text="no", then="discard"),
        "snoozed": jobs.enqueue("says", text="later", then="snooze"),
        "again": jobs.enqueue("says", text="again", then="retry"),
        "unknown": jobs.enqueue("of_tomorrow"),
        "blocking": jobs.enqueue("blocks_loop", seconds=5),
        "thread": jobs.enqueue("blocks", seconds=5),
    }
    ended = {what: jobs.wait(job, "succeeded", "dead_letter") for what, job in ids.items() if what != "unknown"}
    dead = {what for what, state in ended.items() if state == "dead_letter"}
    assert dead == {"always", "slow", "spins", "discarded", "surrogate"}
    codes = {what: [row[1] for row in jobs.attempts(job)] for what, job in ids.items()}
    assert codes == {
        "twice": ["RuntimeError", "RuntimeError", None],
        "always": ["RuntimeError"] * 3,
        "slow": ["timeout"],
        "spins": ["timeout"],
        "child": [None],
        "nul": ["result_dropped"],
        "surrogate": ["ValueError", "ValueError"],
        "discarded": ["discarded"],
        "snoozed": [None],
        "again": ["retry", None],
        "unknown": [],
        "blocking": [None],
        "thread": [None],
    }
    assert jobs.state(ids["unknown"]) == "pending"
    assert [line["n"] for line in jobs.seen("note") if line["n"]] == [7]
    assert len(jobs.seen("begun")) == 2  # each of the two that outlived the lease ran once
    assert jobs.seen("sleeps cancelled")
    workers = jobs.fleet.processes[1]
    assert workers.metric("tide_jobs_unknown_total", queue="quick") >= 1
    assert workers.metric("tide_jobs_ended_total", queue="quick", outcome="succeeded") == 5
    assert workers.metric("tide_job_slots", state="running") == 0
