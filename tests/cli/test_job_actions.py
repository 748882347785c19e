"""`relay jobs cancel, replay, drain, purge, stats, workers, queue`: what operators do, and what they are told."""

import json
import threading
from collections.abc import Iterator

import pytest

from tests.cli.jobs import Bench
from tests.services.postgres import Database

NOWHERE = "00000001-0000-8000-8000-000000000099"


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.session.close()


def failed(bench: Bench, *words: object) -> str:
    """What it said in one line."""
    result = bench.verb(*words)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    [line] = result.stderr.splitlines()
    return str(line)


def test_a_job_is_cancelled_once(bench: Bench) -> None:
    waiting, running = bench.enqueued("--at", "2100-01-01"), bench.enqueued()
    bench.worker.claim()
    assert bench.done("cancel", waiting, "--reason", "ordered twice") == "cancelled\n"
    assert bench.done("cancel", running) == "its worker was asked to stop it\n"
    assert bench.json("cancel", running) == {"job": running, "state": "leased"}
    assert bench.states() == {waiting: "cancelled", running: "leased"}
    assert json.loads(bench.done("show", running))["cancel_requested"] is True
    assert bench.json("attempts", waiting)[0]["error"] == "ordered twice"
    assert f"job {waiting} has ended: it is cancelled" in failed(bench, "cancel", waiting)
    assert f"job {NOWHERE} does not exist" in failed(bench, "cancel", NOWHERE)


def test_many_are_cancelled_and_replayed_only_with_a_yes(bench: Bench) -> None:
    jobs = [bench.enqueued("--run-key", key) for key in "aab"]
    for verb in ("cancel", "replay"):
        assert "of queue mail: give --yes to confirm" in failed(bench, verb, "--queue", "mail")
        for words in ((), (jobs[0], "--queue", "mail"), (jobs[0], "--name", "send")):
            assert bench.verb(verb, *words).exit_code == 2
    assert bench.done("cancel", "--queue", "mail", "--run-key", "a", "--yes") == "cancelled 2 jobs\n"
    assert list(bench.states().values()) == ["pending", "cancelled", "cancelled"]
    result = bench.verb("replay", "--queue", "mail", "--state", "cancelled", "--limit", 1, "--yes")
    assert (result.stdout, result.stderr) == ("replayed 1 job\n", "there may be more: run it again\n")
    bench.worker.run(outcome="d", code="bad")
    assert bench.json("replay", "--queue", "mail", "--yes") == {"jobs": 2}
    assert bench.json("replay", "--queue", "mail", "--yes") == {"jobs": 0}


def test_what_is_refused_says_what_to_do_on_the_command_line_too(bench: Bench) -> None:
    done = bench.enqueued('{"n": 1}', "--idempotency-key", "k")
    bench.worker.run()
    waiting = bench.enqueued()
    for hint, words in (
        ("relay jobs replay --force", ("replay", done)),
        ("relay jobs cancel", ("replay", waiting)),
        ("relay jobs list", ("cancel", NOWHERE)),
        ("relay jobs enqueue --ignore-conflict", ("enqueue", "mail", "send", "--idempotency-key", "k")),
        ("--dedupe-key", ("enqueue", "mail", "send", "--dedupe", "waiting")),
        ("relay jobs queue create", ("queue", "pause", "nope")),
        ("relay jobs queue set", ("queue", "create", "mail")),
        ("relay jobs queue drop --force", ("queue", "drop", "mail", "--yes")),
        ("relay jobs schedule list", ("schedule", "enable", "nope")),
    ):
        assert hint in failed(bench, *words), words
    bench.done("queue", "set", "mail", "--max-payload-bytes", 1)
    assert "relay jobs queue set" in failed(bench, "enqueue", "mail", "send", '{"n": 1}')


def test_a_job_is_replayed_and_one_that_succeeded_only_by_force(bench: Bench) -> None:
    job = bench.enqueued('{"n": 1}', "--idempotency-key", "k")
    assert "has not ended: it is pending" in failed(bench, "replay", job)
    bench.worker.run()
    assert "has succeeded. To run it once more all the same, use force" in failed(bench, "replay", job)
    again = bench.done("replay", job, "--force").strip()
    later = bench.json("replay", job, "--force", "--at", "2100-01-01T00:00:00Z")
    assert later["replay_of"] == job
    for new in (again, later["job"]):
        shown = json.loads(bench.done("show", new))
        assert (shown["payload"], shown["idempotency_key"], shown["state"]) == ({"n": 1}, "k", "pending")
    assert shown["available_at"].startswith("2100-01-01")


def test_drain_waits_until_nothing_waits_or_runs(bench: Bench) -> None:
    assert bench.done("drain", "mail") == "queue mail is drained; 0 dead jobs are kept\n"
    bench.enqueued()
    result = bench.verb("drain", "mail", "--timeout-seconds", 0.01)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "1 waits, 0 run")
    assert "was not drained in 0.01 s: 1 job waits and 0 run" in result.stderr
    claimed = bench.worker.claim()
    assert "0 jobs wait and 1 runs" in bench.verb("drain", "mail", "--timeout-seconds", 0).stderr
    said: list[str] = []
    waiting = threading.Thread(target=lambda: said.append(bench.done("drain", "mail", "--timeout-seconds", 60)))
    waiting.start()
    bench.worker.finish(claimed, "d", "bad")
    waiting.join()
    assert said == ["queue mail is drained; 1 dead job is kept\n"]
    bench.enqueued("--at", "2100-01-01")
    assert "All of them are scheduled for later" in bench.verb("drain", "mail", "--timeout-seconds", 0).stderr
    bench.worker.session.execute("delete from tide.job_worker")
    assert "No worker serves it" in bench.verb("drain", "mail", "--timeout-seconds", 0).stderr
    bench.done("queue", "pause", "mail")
    assert "queue mail is paused, and 1 job waits and 0 run" in bench.verb("drain", "mail").stderr


def test_dead_jobs_are_removed(bench: Bench) -> None:
    job = bench.enqueued()
    bench.worker.run(outcome="d", code="bad")
    assert "dead jobs of queue mail permanently: give --yes" in failed(bench, "purge", "mail")
    assert bench.done("purge", "mail", "--older-than", "1h", "--yes") == "removed 0 dead jobs\n"
    assert bench.json("list", "--state", "dead_letter")[0]["job"] == job
    assert bench.done("purge", "mail", "--yes") == "removed 1 dead job\n"
    assert bench.json("list", "--state", "dead_letter") == []
    assert 'job queue "nope" does not exist' in failed(bench, "purge", "nope", "--yes")


def test_numbers_and_workers_are_shown(bench: Bench) -> None:
    bench.enqueued("--at", "2100-01-01")
    bench.enqueued()
    bench.worker.claim()
    [title, line] = bench.done("stats").splitlines()
    assert title.split() == ["queue", "due", "scheduled", "leased", "limit", "dead", "oldest", "due", "workers"]
    assert line.split() == ["mail", "0", "1", "1", "0", "1"]
    [numbers] = bench.json("stats", "mail")
    assert (numbers["pending"], numbers["leased"], numbers["workers"]) == (1, 1, 1)
    [title, line] = bench.done("workers").splitlines()
    assert line.split()[:6] == [str(bench.worker.number), "here", "1", "mail", "1", "10"]
    [worker] = bench.json("workers")
    assert (worker["queues"], worker["leased"], worker["stopping"]) == (["mail"], 1, False)


def test_queues_are_created_changed_paused_and_dropped(bench: Bench) -> None:
    limits = ("--concurrency-limit", 8, "--key-limit", 1, "--rate", 2.5, "--config", '{"celery_queue": "c"}')
    assert bench.done("queue", "create", "imports", *limits) == "created queue imports\n"
    assert 'job queue "imports" exists already' in failed(bench, "queue", "create", "imports")
    shown = json.loads(bench.done("queue", "show", "imports"))
    assert (shown["concurrency_limit"], shown["key_limit"], shown["rate"], shown["paused"]) == (8, 1, 2.5, False)
    words = ("--rate", "none", "--retention-hours", 2, "--fair", "--forget-succeeded")
    assert "rate" in bench.done("queue", "set", "imports", *words)
    assert bench.done("queue", "pause", "imports") == "paused queue imports\n"
    shown = json.loads(bench.done("queue", "show", "imports"))
    assert (shown["rate"], shown["retention_hours"], shown["fair"]) == (None, 2, True)
    assert (shown["keep_succeeded"], shown["concurrency_limit"], shown["paused"]) == (False, 8, True)
    [_, line, other] = bench.done("queue", "list").splitlines()
    assert line.split() == ["imports", "paused", "8", "1", "2", "720"] and other.split()[:2] == ["mail", "active"]
    assert [queue["queue"] for queue in bench.json("queue", "list")] == ["imports", "mail"]
    bench.done("enqueue", "imports", "import_file")
    assert "give --yes" in failed(bench, "queue", "drop", "imports")
    assert "has jobs that wait or run" in failed(bench, "queue", "drop", "imports", "--yes")
    bench.done("queue", "resume", "imports")
    assert bench.done("queue", "drop", "imports", "--force", "--yes") == "removed queue imports\n"
    for verb in (["show", "nope"], ["pause", "nope"], ["resume", "nope"], ["set", "nope", "--fair"]):
        assert "does not exist" in failed(bench, "queue", *verb)
    for wrong in (["set", "mail"], ["set", "mail", "--rate", "much"], ["create", "x", "--config", "{"]):
        assert bench.verb("queue", *wrong).exit_code == 2
    assert "config of job queue" in failed(bench, "queue", "set", "mail", "--config", "[]")


def test_schedules_are_set_disabled_and_deleted(bench: Bench) -> None:
    words = ("schedule", "set", "nightly", "mail", "digest", '{"days": 1}', "--cron", "30 2 * * *", "--priority", 3)
    assert bench.done(*words, "--time-zone", "Europe/Berlin") == "set schedule nightly\n"
    assert bench.done(*words, "--time-zone", "Europe/Berlin") == "schedule nightly is so already\n"
    [found] = bench.json("schedule", "list")
    assert (found["queue"], found["name"], found["priority"], found["enabled"]) == ("mail", "digest", 3, True)
    assert bench.done("schedule", "disable", "nightly") == "disabled schedule nightly\n"
    [_, line] = bench.done("schedule", "list").splitlines()
    assert line.split() == ["nightly", "disabled", "mail", "digest", "30", "2", "*", "*", "*", "Europe/Berlin"]
    assert bench.done("schedule", "enable", "nightly") == "enabled schedule nightly\n"
    assert "give --yes" in failed(bench, "schedule", "delete", "nightly")
    assert bench.done("schedule", "delete", "nightly", "--yes") == "deleted schedule nightly\n"
    assert bench.verb("schedule", "list").stderr.startswith("there are no schedules")
    for verb in (["enable", "nope"], ["disable", "nope"], ["delete", "nope", "--yes"]):
        assert "does not exist" in failed(bench, "schedule", *verb)
    assert "does not exist" in failed(bench, "schedule", "set", "s", "nope", "digest", "--cron", "@daily")
    for wrong in (["--cron", "61 * * * *"], ["--cron", "@daily", "--time-zone", "Mars/North"]):
        assert failed(bench, "schedule", "set", "s", "mail", "digest", *wrong)
    assert bench.json("schedule", "list") == []
