"""`relay inbox`, and dead messages of inboxes in `relay status` and `relay doctor`."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.cli.command import invoke
from tests.services.postgres import Database
from tests.sql.inbox.inboxes import call, claim, fill
from tests.sql.security.logins import logins

NOWHERE = "postgresql://unknown@127.0.0.1:1/none"


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        yield connection


def kill(db: psycopg.Connection[Any], *event_ids: str, minute: int = 0) -> None:
    """They have failed for the last time, one minute after the other."""
    for number, event_id in enumerate(event_ids, minute):
        db.execute(
            "update tide.commands set retry_count = 3, error = 'at nats://u:hidden-one@h: \x1b[2J',"
            " failed_at = '2026-03-01 12:00+00'::timestamptz + %s * interval '1 minute' where event_id = %s",
            [number, event_id],
        )


def relay(database: Database, *words: object) -> Any:
    return invoke(*map(str, words), url=database.url)


def listed(database: Database, *words: object) -> list[str]:
    """The ids, in their order."""
    result = relay(database, "inbox", "messages", "commands", *words, "--json")
    assert result.exit_code == 0, result.output
    return [message["event_id"] for message in json.loads(result.stdout)]


def finding(database: Database) -> list[dict[str, Any]]:
    result = invoke("doctor", "--json", url=database.url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
    return [found for found in json.loads(result.stdout) if found["check"] == "inboxes"]


def test_inboxes_are_listed_with_their_dead_messages(database: Database, db: psycopg.Connection[Any]) -> None:
    call(db, "tide.inbox_create('audit', max_retries => 9, dead_retention_hours => 5)")
    call(db, "tide.enable_inbox_ordering('commands')")
    fill(db, "a", "b")
    kill(db, "a", "b")
    lines = [line.split() for line in relay(database, "inbox", "list").stdout.splitlines()[1:]]
    assert lines == [
        ["audit", "tide.audit", "9", "5", "0"],
        ["commands", "tide.commands", "3", "yes", "2", "2026-03-01", "12:00:00"],
    ]  # fmt: skip
    found = json.loads(relay(database, "inbox", "list", "--json").stdout)
    assert [(one["inbox"], one["dead"], one["dead_retention_hours"]) for one in found] == [
        ("audit", 0, 5), ("commands", 2, None),
    ]  # fmt: skip


def test_one_is_shown_with_its_health(database: Database, db: psycopg.Connection[Any]) -> None:
    fill(db, *"abc")
    assert json.loads(relay(database, "inbox", "status", "commands", "--json").stdout)["health"] == "healthy"
    db.execute("update tide.commands set retry_count = 3 where event_id = 'a'")
    result = relay(database, "inbox", "status", "commands")
    assert result.stdout.splitlines()[1].split()[:7] == ["commands", "degraded", "2", "0", "0", "0", "1"]
    assert result.stdout.splitlines()[2] == "1 message died within the last five minutes"
    assert "relay inbox messages commands --dead" in result.stderr


def test_messages_are_listed_whole_in_pages_and_printed_safely(database: Database, db: psycopg.Connection[Any]) -> None:
    fill(db, *"abcde", payload=Jsonb({"n": 1}))
    db.execute("update tide.commands set payload = '{\"n\": 12345678901234567890.10}' where event_id = 'a'")
    kill(db, *"abc")
    assert listed(database) == listed(database, "--dead") == ["c", "b", "a"]
    assert listed(database, "--pending") == ["e", "d"]
    assert listed(database, "--since", "2026-03-01T13:01:00+01:00", "--until", "2026-03-01T12:02:00Z") == ["b"]
    assert listed(database, "e", "a") == ["a", "e"] or listed(database, "e", "a") == ["e", "a"]
    page = relay(database, "inbox", "messages", "commands", "--limit", 2)
    assert [line.split()[:2] for line in page.stdout.splitlines()[1:3]] == [["c", "dead"], ["b", "dead"]]
    assert "\x1b" not in page.output and "hidden-one" not in page.output
    cursor = page.stderr.strip().rpartition("--before ")[2]
    assert listed(database, "--before", cursor) == ["a"]
    text = relay(database, "inbox", "messages", "commands", "a", "--json").stdout
    assert '"n": 12345678901234567890.10' in text and "hidden-one" not in text


def test_named_messages_are_replayed_all_or_none(database: Database, db: psycopg.Connection[Any]) -> None:
    fill(db, *"abc")
    kill(db, *"ab")
    missing = relay(database, "inbox", "replay", "commands", "a", "nope")
    assert (missing.exit_code, "has no message 'nope'" in missing.stderr) == (1, True)
    assert listed(database, "--pending") == ["c"]
    result = relay(database, "inbox", "replay", "commands", "a", "c")
    assert (result.exit_code, result.stdout) == (0, "replayed 1 message of inbox commands\n")
    assert "1 message is pending already" in result.stderr
    assert sorted(claim(db)) == ["a", "c"]


def test_dead_messages_are_replayed_once_it_is_confirmed(database: Database, db: psycopg.Connection[Any]) -> None:
    db.execute("insert into tide.commands (event_id, retry_count) select 'm' || n, 3 from generate_series(1, 2500) n")
    fill(db, *"abcde")
    kill(db, *"abcde")
    refused = relay(database, "inbox", "replay", "commands", "--all-dead")
    assert (refused.exit_code, "give --yes to confirm" in refused.stderr) == (1, True)
    some = relay(database, "inbox", "replay", "commands", "--since", "2026-03-01T12:01:00Z", "--until",
                 "2026-03-01T12:03:00Z", "--yes")  # fmt: skip
    assert some.stdout == "replayed 2 messages of inbox commands\n"
    assert listed(database, "--pending") == ["c", "b"]
    first = relay(database, "inbox", "replay", "commands", "--all-dead", "--limit", 1, "--yes", "--json")
    assert json.loads(first.stdout) == {"inbox": "commands", "replayed": 1}
    assert listed(database, "--pending") == ["c", "b", "a"], "the oldest first"
    rest = relay(database, "inbox", "replay", "commands", "--all-dead", "--yes")
    assert rest.stdout == "replayed 2502 messages of inbox commands\n"
    assert listed(database) == []


def test_status_and_doctor_name_inboxes_with_dead_messages(database: Database, db: psycopg.Connection[Any]) -> None:
    call(db, "tide.inbox_create('aside')")
    call(db, "tide.relay_set_inbox('p', 'commands', %s)", Jsonb({"source_type": "stdin"}))
    call(db, "tide.outbox_create('orders')")
    call(db, "tide.relay_set_outbox('f', 'orders', %s)", Jsonb({"sink_type": "stdout"}))
    assert [(f["result"], f["found"]) for f in finding(database)] == [("ok", "2 inboxes without dead messages")]
    assert "dead messages" not in relay(database, "status").stdout
    fill(db, *"abc")
    kill(db, *"ab")
    fill(db, "x", inbox="aside")
    db.execute("update tide.aside set retry_count = 3")
    statuses = json.loads(relay(database, "status", "--json").stdout)
    assert [(s["name"], s["inbox_dead"]) for s in statuses] == [("f", None), ("p", 2)]
    text = relay(database, "status").stdout
    assert "inbox commands has 2 dead messages: relay inbox messages commands --dead" in text
    [aside, commands] = finding(database)
    since = "the oldest since 2026-03-01 12:00:00 UTC"
    assert commands["result"] == "warning"
    assert commands["found"].startswith(f"inbox commands has 2 dead messages, {since}: handling has failed")
    assert "relay inbox messages commands --dead" in commands["fix"]
    assert "relay inbox replay commands --all-dead" in commands["fix"]
    assert aside["found"].startswith("inbox aside has 1 dead message, the oldest since 2")
    db.execute("drop table tide.aside cascade")
    assert finding(database)[0]["found"] == "inbox aside could not be looked at"


def test_those_who_run_schedulers_look_and_operators_replay(database: Database, db: psycopg.Connection[Any]) -> None:
    fill(db, "a")
    kill(db, "a")
    with logins(database) as make:
        (_, relay_url), (_, operator_url) = make("grant_relay"), make("grant_operator")
        for words in (("inbox", "list"), ("inbox", "status", "commands"), ("outbox", "list"), ("status",)):
            result = invoke(*words, url=relay_url)
            assert result.exit_code == 0, result.output
        refused = invoke("inbox", "replay", "commands", "a", url=relay_url)
        assert (refused.exit_code, "permission denied" in refused.stderr) == (1, True)
        assert invoke("inbox", "messages", "commands", url=operator_url).exit_code == 0
        assert "replayed 1 message" in invoke("inbox", "replay", "commands", "a", url=operator_url).stdout


def test_what_cannot_be_is_said_with_what_to_do(database: Database, db: psycopg.Connection[Any]) -> None:
    for words, said in (
        ("status nope", 'inbox "nope" does not exist'),
        ("messages nope", 'inbox "nope" does not exist'),
        ("messages commands nope", "inbox commands has no message nope"),
        ("messages commands --before x", "'x' is not the cursor of a page"),
        ("messages commands --pending --since 2026-03-01", "since and until are for dead and processed messages"),
        ("replay nope a", 'inbox "nope" does not exist'),
        ("replay nope --all-dead --yes", 'inbox "nope" does not exist'),
    ):
        result = relay(database, "inbox", *words.split())
        assert (result.exit_code, said in result.stderr) == (1, True), (words, result.output)
    none = relay(database, "inbox", "messages", "commands")
    assert (none.exit_code, none.stdout, "has no message that is dead" in none.stderr) == (0, "", True)
    assert relay(database, "inbox", "messages", "commands", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    "words",
    ["replay x", "replay x a --all-dead", "replay x --all-dead --since 2026-03-01", "replay x a --limit 1",
     "messages x a --dead", "messages x --since yesterday", "messages x --limit 0"],
)  # fmt: skip
def test_wrong_usage_is_said_before_any_database_is_asked(words: str) -> None:
    assert invoke("inbox", *words.split(), url=NOWHERE).exit_code == 2
