"""`relay status` and `relay doctor` of queues of jobs: what they hold, why they do not advance, and what to do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.command import invoke
from tests.cli.jobs import Bench
from tests.services.postgres import Database
from tests.sql.jobs.jobs import enqueue, enqueue_overdue
from tests.sql.support import listen


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.session.close()


def of_jobs(bench: Bench) -> list[tuple[str, str, str | None]]:
    """The findings of the check `jobs`."""
    return of_check(bench, "jobs")


def of_check(bench: Bench, check: str) -> list[tuple[str, str, str | None]]:
    result = invoke("doctor", "--json", url=bench.url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
    return [(f["result"], f["found"], f["fix"]) for f in json.loads(result.stdout) if f["check"] == check]


def only(bench: Bench) -> tuple[str, str, str | None]:
    [finding] = of_jobs(bench)
    return finding


def status(bench: Bench) -> dict[str, Any]:
    [found] = json.loads(invoke("status", "--json", url=bench.url).stdout)
    return dict(found)


def test_each_finding_says_what_to_do(bench: Bench) -> None:
    bench.session.execute("delete from tide.job_worker")
    no_worker = "none is alive, and 1 pipeline needs them"
    assert (only(bench)[0], of_check(bench, "workers")[0][:2]) == ("skipped", ("failed", no_worker))
    enqueue_overdue(bench.session)
    [(result, found, fix)] = of_check(bench, "workers")
    assert (only(bench)[0], result) == ("skipped", "failed") and "relay workers --jobs MODULE" in (fix or "")
    assert found.startswith("none is alive; no worker serves queue mail, and 1 job is due, the oldest for ")
    # Workers of messages only, and two queues that none serves: one finding, of the one in which jobs are due.
    bench.session.execute(
        "select tide.job_queue_create('sms'), tide.process_beat(gen_random_uuid(), 'workers', 'here', 9, '0')"
    )
    assert of_check(bench, "workers")[0][0] == "ok"
    result, found, fix = only(bench)
    assert (result, fix) == ("failed", "start workers that have the handlers: relay workers --jobs MODULE")
    assert found.startswith("no worker serves queue mail, and 1 job is due, the oldest for ")
    bench.session.execute("update tide.job_wait set available_at = 'infinity'")
    assert only(bench)[:2] == ("warning", "no worker serves queues mail, sms; nothing is overdue")
    bench.session.execute("update tide.job_wait set available_at = '2020-01-01'")
    bench.session.execute("select tide.job_queue_drop('sms')")
    result, found, fix = only(bench)
    bench.session.execute("select tide.job_worker_start('here', 1, '{mail}', 10)")
    assert only(bench)[:2] == ("warning", found.replace("no worker serves queue mail, and", "in queue mail"))
    bench.done("queue", "set", "mail", "--concurrency-limit", 1)
    enqueue(bench.session)
    bench.session.execute("select tide.job_worker_start('here', 2, '{mail}', 10)")
    worker = bench.worker
    worker.number += 2
    enqueue_overdue(bench.session)
    assert len(worker.claim()) == 1
    result, found, fix = only(bench)
    assert (result, fix) == ("warning", "raise it: relay jobs queue set mail --concurrency-limit N")
    assert "queue mail is at its limit of 1" in found
    bench.done("queue", "pause", "mail")
    assert only(bench) == ("warning", "queue mail is paused, and 2 jobs wait in it", "relay jobs queue resume mail")
    bench.session.execute("update tide.job_worker set seen_at = now() - interval '5 minutes' where pid = 2")
    [_, (result, found, _)] = of_jobs(bench)
    assert result == "warning" and "worker here:2 has been silent for 5 min, with 1 job" in found


def test_handlers_that_no_worker_has_are_named(bench: Bench) -> None:
    enqueue(bench.session, name="send\x1b[2J")
    enqueue(bench.session, name="send\x1b[2J")
    bench.worker.finish(bench.worker.claim(), "b", "unknown_handler", 60)
    result, found, _ = only(bench)
    assert result == "warning"
    assert found == "no worker of queue mail has a handler 'send\\x1b[2J': 2 jobs were handed back"
    assert [job["code"] for job in bench.json("list")] == ["unknown_handler"] * 2


def test_a_schedule_that_cannot_fire_is_found(bench: Bench) -> None:
    assert bench.done("schedule", "set", "nightly", "mail", "digest", "--cron", "@daily")
    assert only(bench)[0] == "ok"
    bench.session.execute("update tide.job_schedule set invalid_reason = 'no such time zone'")
    result, found, _ = only(bench)
    assert (result, found) == ("failed", "schedule nightly of queue mail enqueues nothing: no such time zone")


def test_a_wrong_configuration_of_a_queue_is_found(bench: Bench) -> None:
    bench.session.execute(  # SQL knows no keys
        """select tide.job_queue_set('mail', '{"config": {"celery_colour": "red"}}')"""
    )
    result = invoke("doctor", "--json", url=bench.url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
    [finding] = [f for f in json.loads(result.stdout) if f["check"] == "pipeline jobs.mail"]
    assert finding["result"] == "failed" and "celery_colour" in finding["found"]
    assert finding["fix"] == "relay jobs queue set mail --config with a valid configuration"
    assert invoke("pipeline", "validate", url=bench.url).exit_code == 1
    bench.done("queue", "set", "mail", "--config", "{}")
    assert invoke("pipeline", "validate", url=bench.url).exit_code == 0
    assert invoke("pipeline", "show", "jobs.mail", url=bench.url).exit_code == 0
    assert "jobs/mail" in invoke("pipeline", "list", url=bench.url).stdout


def test_status_shows_queues_below_pipelines_and_why_they_do_not_advance(bench: Bench) -> None:
    found = status(bench)
    assert (found["name"], found["direction"], found["state"]) == ("jobs.mail", "jobs", "unowned")
    assert found["why"] == "no scheduler is alive: start relay-scheduler"
    listen(bench.session, "now")
    bench.session.execute(
        "update tide.scheduler s set backend_start = a.backend_start from pg_stat_activity a"
        " where a.pid = s.backend_pid"
    )
    bench.session.execute("update tide.drain set owner = (select scheduler_id from tide.scheduler)")
    assert status(bench)["why"] == "nothing to do"
    enqueue(bench.session, available_at="2100-01-01")
    assert status(bench)["why"] == "nothing is due; 1 waits for its time"
    enqueue(bench.session)
    assert status(bench)["why"] == "a drain is about to begin"
    enqueue_overdue(bench.session)
    assert status(bench)["why"] == "no worker has room, or a limit is reached"
    bench.session.execute("update tide.job_worker set stopping = true")
    assert status(bench)["why"] == "no worker serves it: start one with relay workers --jobs MODULE"
    bench.worker.claim()
    found = status(bench)
    assert (found["state"], found["why"]) == ("running", "2 jobs are leased, 0 are due")
    assert (found["jobs"]["leased"], found["jobs"]["scheduled"], found["lag_messages"]) == (2, 1, 0)
    bench.session.execute(
        "select tide.outbox_create('o'), tide.relay_set_outbox('p', 'o', '{\"sink_type\": \"stdout\"}')"
    )
    lines = invoke("status", url=bench.url).stdout.splitlines()
    assert lines[0].split()[0] == "pipeline" and lines[1].split()[:2] == ["p", "unowned"]
    title = lines.index("queues of jobs")
    assert lines[title + 1].split()[:2] == ["queue", "state"] and lines[title + 2].split()[:2] == ["mail", "running"]
    bench.done("queue", "pause", "mail")
    [found] = json.loads(invoke("status", "jobs.mail", "--json", url=bench.url).stdout)
    assert (found["state"], found["why"]) == ("disabled", "paused: relay jobs queue resume mail")


def test_verbs_for_messages_say_that_a_queue_is_one_of_jobs(bench: Bench) -> None:
    for words, said in (
        (("publish", "jobs/mail"), "is a queue of jobs and takes no messages"),
        (("replay", "jobs.mail", "1", "2"), "is a queue of jobs"),
        (("dead-letter", "retry", "--pipeline", "jobs.mail"), "is a queue of jobs: see relay jobs replay"),
        (("pipeline", "delete", "jobs.mail", "--yes"), "belongs to a queue of jobs"),
        (("pipeline", "set", "p", "jobs/mail", "--config", '{"sink_type": "stdout"}'), "is a queue of jobs"),
    ):
        result = invoke(*words, url=bench.url, stdin="1\n")
        assert (result.exit_code, said in result.stderr) == (1, True), result.output
    result = invoke("restored", "--dry-run", url=bench.url)
    assert result.exit_code == 0 and "jobs that ended in the time that is lost run again" in result.stdout
