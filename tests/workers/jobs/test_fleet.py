"""Jobs in a real fleet: enqueued in a transaction, run by a real worker process."""

import json

import redis

from relay.jobs import enqueue_dramatiq, enqueue_http
from tests.services.http_receiver import Rule
from tests.waiting import wait_until
from tests.workers.jobs.fleet import jobs, running  # noqa: F401  fixtures


def test_what_becomes_of_jobs(running, http_receiver, redis_server):  # noqa: F811
    jobs = running  # noqa: F811
    with jobs.connection.transaction():
        good = jobs.enqueue("note", n=7)
        assert jobs.seen() == []
    assert jobs.wait(good, "succeeded", "dead_letter") == "succeeded"
    assert jobs.results(good) == ["7"]
    with jobs.connection.transaction():
        needed = jobs.enqueue("note", n=6)
        waiting = [
            jobs.enqueue("sees_results", after=[good, needed]),
            jobs.enqueue("sees_results_in_a_process", after=[needed]),
        ]
    assert [jobs.wait(each, "succeeded", "dead_letter") for each in waiting] == ["succeeded"] * 2
    given = [json.loads(text) for each in waiting for text in jobs.results(each)]
    assert given == [{good: 7, needed: 6}, {needed: 6}]
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
        "cancelled": jobs.enqueue("waits"),
        "blocking": jobs.enqueue("blocks_loop", seconds=3),
        "thread": jobs.enqueue("blocks", seconds=3),
    }
    wait_until(lambda: any(line["id"] == ids["cancelled"] for line in jobs.seen("begun")), 30, "it runs")
    assert jobs.cancel(ids["cancelled"]) == "leased"
    states = ("succeeded", "dead_letter", "cancelled")
    ended = {what: jobs.wait(job, *states) for what, job in ids.items() if what != "unknown"}
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
        "cancelled": ["cancelled"],
        "blocking": [None],
        "thread": [None],
    }
    assert jobs.state(ids["unknown"]) == "pending"
    assert [line["n"] for line in jobs.seen("note") if line["n"]] == [7, 6]
    assert len(jobs.seen("begun")) == 3  # each of the two that outlived the lease ran once; and the cancelled one
    assert jobs.seen("sleeps cancelled")
    workers = jobs.fleet.processes[1]
    assert workers.metric("tide_jobs_unknown_total", queue="quick") >= 1
    assert workers.metric("tide_jobs_ended_total", queue="quick", outcome="succeeded") == 6
    assert workers.metric("tide_job_slots", state="running") == 0
    # Requests and messages for other systems need no handler, but a configuration of their queue.
    config = {
        "config": {
            "http": {"allow_http": True, "allow_private_network": True},
            "dramatiq_url": redis_server.url,
            "dramatiq_queue": "of_the_shop",
        }
    }
    jobs.connection.execute("select tide.job_queue_set('few', %s)", (json.dumps(config),))
    http_receiver.rule("/jobs", Rule(status=204))
    asked = enqueue_http(jobs.connection, "few", f"{http_receiver.url}/jobs", json={"n": 1})
    handed = enqueue_dramatiq(jobs.connection, "few", "send_receipt", (42,))
    assert jobs.wait(asked, *states) == jobs.wait(handed, *states) == "succeeded"
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.llen("dramatiq:of_the_shop") == 1
    # A queue that is paused claims nothing; one that is resumed does at once.
    jobs.connection.execute("select tide.job_queue_pause('quick')")
    paused = jobs.enqueue("note", n=8)
    jobs.connection.execute("select tide.job_queue_resume('quick')")
    assert jobs.wait(paused, *states) == "succeeded"
