"""relay.inbox: a handler's work and the mark of its message are one transaction, whatever happens to the process."""

import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from tests.inbox.effects import drain, effects, has_effects, leave_effect
from tests.nesting import TOO_DEEP
from tests.sql.inbox.inboxes import call, claim, fill, fill_many, names
from tests.waiting import wait_until


def test_each_message_is_handled_once_in_order_with_all_it_says(db, database):
    fill(db, "a", event_type="t", source="s", aggregate_id="g", event_sequence=3, trace_id="x", payload='{"n": [1.5]}')
    fill(db, *"bcdefghijklmn")
    seen = []

    def handle(connection, message):
        seen.append(message)
        leave_effect(connection, message)

    assert drain(database, handle, batch_size=3) == 14
    assert effects(db) == list("abcdefghijklmn")
    first = seen[0]
    assert (first.inbox_seq, first.event_type, first.source, first.aggregate_id, first.event_sequence) == (
        1,
        "t",
        "s",
        "g",
        3,
    )
    assert (first.payload, first.headers, first.trace_id, first.retry_count) == ({"n": [1.5]}, {}, "x", 0)
    assert drain(database) == 0


def test_the_text_of_a_message_has_every_digit(db, database):
    text = '{"n": [1.10, 12345678901234.5678901]}'
    fill(db, "a", payload=text, headers=text)
    seen = []
    drain(database, lambda _connection, message: seen.append(message))
    [message] = seen
    assert (message.payload_text, message.headers_text) == (text, text)
    assert message.payload == message.headers == json.loads(text)


def test_a_worker_that_is_killed_again_and_again_has_every_effect_once(db, database):
    fill_many(db, 400)
    command = [sys.executable, "-m", "tests.inbox.app", database.url, "commands"]
    for goal in (100, 200, 300, 400):
        workers = [subprocess.Popen(command) for _ in range(2)]
        try:
            wait_until(partial(has_effects, db, goal), timeout_seconds=60)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert sorted(effects(db)) == sorted(f"m{n}" for n in range(1, 401))
    assert call(db, "count(*) from tide.commands where processed_at is null or retry_count > 0") == 0


def test_workers_share_an_inbox(db, database):
    fill_many(db, 200)
    with ThreadPoolExecutor(4) as pool:
        handled = list(pool.map(lambda _: drain(database), range(4)))
    assert sum(handled) == 200
    assert sorted(effects(db)) == sorted(f"m{n}" for n in range(1, 201))


def test_what_a_failing_handler_did_is_undone_and_its_neighbours_are_handled(db, database, caplog):
    fill(db, "a", "bad", "c")

    def handle(connection, message):
        leave_effect(connection, message)
        if message.event_id == "bad":
            raise ValueError("no \0 such thing")

    assert drain(database, handle) == 2
    assert effects(db) == ["a", "c"]
    row = db.execute(
        "select retry_count, error, claimed_by, available_at > now() from tide.commands_pending"
    ).fetchone()
    assert row[1].startswith("ValueError: no \N{REPLACEMENT CHARACTER} such thing (inbox/test_run.py:")
    assert row[1].endswith(" in handle)")
    assert row[::2] == (1, None) and row[3]
    assert 'raise ValueError("no \\0 such thing")' in caplog.text, "the traceback is logged"


def test_a_message_that_always_fails_is_dead_at_last(db, database):
    fill(db, "poison", "good")

    def handle(connection, message):
        if message.event_id == "poison":
            connection.execute("select 1 / 0")

    while names(db, "commands_pending"):
        db.execute("update tide.commands set available_at = null")
        drain(database, handle)
    [(dead, attempts, error)] = db.execute("select event_id, retry_count, error from tide.commands_dlq").fetchall()
    assert (dead, attempts) == ("poison", 3)
    assert "division by zero" in error


def test_a_moment_that_python_does_not_have_stops_no_message(db, database):
    fill(db, "a", "b")
    db.execute("update tide.commands set received_at = 'infinity' where event_id = 'a'")
    assert drain(database) == 2


@pytest.mark.parametrize("payload", [TOO_DEEP, "1" * 5000], ids=["deep", "long number"])
def test_a_message_that_python_cannot_parse_fails_and_its_neighbours_are_handled(db, database, payload):
    fill(db, "bad", payload=payload)
    assert drain(database) == 0
    fill(db, "a", "b")
    assert drain(database, batch_size=1) == 2
    assert effects(db) == ["a", "b"]
    [(retries, error)] = db.execute("select retry_count, error from tide.commands where event_id = 'bad'").fetchall()
    assert retries >= 1
    assert "Error" in error


def test_a_handler_that_hides_an_error_of_its_transaction_has_failed(db, database):
    fill(db, "a")

    def handle(connection, message):
        with contextlib.suppress(psycopg.Error):
            connection.execute("select 1 / 0")

    assert drain(database, handle) == 0
    assert "continued after an error" in call(db, "error from tide.commands")


def test_a_handler_cannot_commit_by_itself_and_a_rollback_is_no_success(db, database):
    fill(db, "commits", "rolls_back")

    def handle(connection, message):
        leave_effect(connection, message)
        if message.event_id == "commits":
            connection.commit()
        raise psycopg.Rollback

    assert drain(database, handle) == 0
    assert effects(db) == []
    assert names(db, "commands_pending") == ["commits", "rolls_back"]


def test_a_message_that_is_handled_is_taken_by_missing_though_its_lease_is_over(db, database):
    fill(db, "a", "b")
    stolen = []

    def handle(connection, message):
        if message.event_id == "a":
            wait_until(lambda: call(db, "bool_and(available_at < clock_timestamp()) from tide.commands"))
            stolen.extend(claim(db, worker="thief"))
        leave_effect(connection, message)

    assert drain(database, handle, visibility_seconds=1) == 1
    assert (stolen, effects(db)) == (["b"], ["a"])
