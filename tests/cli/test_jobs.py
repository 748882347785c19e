"""`relay jobs enqueue, list, show, attempts`: what is enqueued is listed and shown, and what became of it."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.jobs import Bench
from tests.services.postgres import Database
from tests.sql.jobs.jobs import enqueue, uuid_of


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.session.close()


def test_a_job_is_enqueued_listed_and_shown_with_every_digit(bench: Bench) -> None:
    digits = "12345678901234567890.1234567890123456789000"
    job = bench.enqueued(f'{{"total": {digits}}}', "--idempotency-key", "k", "--priority", 3, "--headers", '{"A": "b"}')
    title, line = bench.done("list").splitlines()
    assert title.split()[:5] == ["id", "queue", "name", "state", "attempts"]
    assert line.split()[:5] == [job, "mail", "send", "pending", "0/10"]
    shown = bench.done("show", job)
    assert digits in shown
    found = json.loads(shown)
    assert (found["priority"], found["idempotency_key"], found["headers"]) == (3, "k", {"A": "b"})
    assert found["payload"].keys() == {"total"} and "payload" not in bench.json("list")[0]
    assert bench.verb("attempts", job).stderr == "it has not run yet\n"


def test_a_key_gives_the_first_job_and_refuses_another_payload(bench: Bench) -> None:
    first = bench.enqueued("{}", "--idempotency-key", "k")
    again = bench.verb("enqueue", "mail", "send", "{}", "--idempotency-key", "k")
    assert (again.stdout, again.stderr) == (f"{first}\n", "nothing was enqueued: this job has the key\n")
    other = bench.verb("enqueue", "mail", "send", '{"n": 1}', "--idempotency-key", "k")
    assert (other.exit_code, first in other.stderr, "another name or payload" in other.stderr) == (1, True, True)
    ignored = bench.json("enqueue", "mail", "send", '{"n": 1}', "--idempotency-key", "k", "--ignore-conflict")
    assert (ignored["job"], ignored["is_new"]) == (first, False)
    assert len(bench.states()) == 1


def test_the_rights_of_a_publisher_of_jobs_are_enough_to_enqueue(bench: Bench, database: Database) -> None:
    role = f"job_publisher_{database.name}"
    with database.admin() as admin:
        admin.execute(f"create role {role} login password 'p'")
    bench.session.execute(f"select tide.grant_job_publisher('{role}')")
    bench.url = database.server.process.url_of(database.name, role, "p")
    job = bench.enqueued("{}", "--idempotency-key", "k")
    again = bench.json("enqueue", "mail", "send", "{}", "--idempotency-key", "k")
    assert again == {"id": 1, "job": job, "is_new": False}


def test_attempts_say_when_and_why(bench: Bench) -> None:
    job = bench.enqueued()
    bench.worker.run(outcome="r", code="hiccup")
    bench.session.execute("update tide.job_attempt set error = 'at nats://u:hidden-password@h \x1b[2J said no'")
    [run] = json.loads(bench.done("attempts", job, "--json"))
    assert (run["attempt"], run["status"], run["code"], run["ms"]) == (1, "failed", "hiccup", 12)
    for words in (("attempts", job), ("attempts", job, "--json"), ("show", job)):
        assert "nats://u:***@h" in bench.done(*words) and "\x1b" not in bench.done(*words)


def test_a_text_that_is_not_unicode_is_an_error_and_no_traceback(bench: Bench) -> None:
    for words in (("enqueue", "mail", "\udcff", "{}"), ("list", "mail", "--name", "\udcff")):
        refused = bench.verb(*words)
        assert (refused.exit_code, "is not valid Unicode" in refused.stderr) == (1, True)
    assert bench.states() == {}


def test_lists_of_all_queues_go_on_where_a_page_ended(bench: Bench) -> None:
    bench.session.execute("select tide.job_queue_create('other')")
    made = [(queue, enqueue(bench.session, queue=queue)) for queue in ("mail", "other", "mail", "mail", "other")]
    newest = [uuid_of(bench.session, number, queue) for queue, number in reversed(made)]
    paged, words = [], ["list", "--limit", "2", "--json"]
    before: list[str] = []
    for _ in range(4):
        result = bench.verb(*words, *before)
        paged += [job["job"] for job in json.loads(result.stdout)]
        if not result.stderr:
            break
        before = result.stderr.split()[-2:]
    assert paged == newest
    assert bench.verb("list", "other", "--state", "dead_letter").stderr == "there are no such jobs\n"


def test_wrong_words_are_said_in_one_line(bench: Bench) -> None:
    nowhere = "00000001-0000-8000-8000-000000000099"
    for words, code, said in (
        (("enqueue", "nope", "send"), 1, 'job queue "nope" does not exist'),
        (("enqueue", "mail", "send", "{"), 2, "not JSON"),
        (("enqueue", "mail", "send", "--priority", 5000), 1, "must be between -1000 and 1000"),
        (("enqueue", "mail", "send", "--at", "soon"), 2, "'soon' is not a time"),
        (("list", "nope"), 1, 'job queue "nope" does not exist'),
        (("list", "--before", "soon"), 1, "not the cursor of a page"),
        (("show", nowhere), 1, f"job {nowhere} does not exist"),
        (("attempts", nowhere), 1, f"job {nowhere} does not exist"),
        (("show", "7"), 2, "not a valid UUID"),
        (("show", "00000000-0000-0000-0000-000000000000"), 1, "is not the id of a job"),
    ):
        result = bench.verb(*words)
        assert (result.exit_code, said in result.stderr) == (code, True), (words, result.output)
        assert "Traceback" not in result.output
