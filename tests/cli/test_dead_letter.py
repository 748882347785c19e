"""`relay dead-letter`: what was refused is listed and shown, retried by its pipeline, discarded by a person."""

import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.cli.command import RELAY, environment, invoke
from tests.cli.dead_letters import Refusing
from tests.services.postgres import Database
from tests.waiting import wait_until

NOWHERE = "postgresql://unknown@127.0.0.1:1/none"


@pytest.fixture
def bench(database: Database) -> Iterator[Refusing]:
    made = Refusing(database)
    yield made
    made.close()


def verb(bench: Refusing, *words: object, stdin: "str | bytes" = "") -> Any:
    return invoke("dead-letter", *map(str, words), url=bench.database.url, stdin=stdin)


def listed(bench: Refusing, *words: object) -> list[dict[str, Any]]:
    result = verb(bench, "list", "--json", *words)
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def receive_only(bench: Refusing, **config: Any) -> None:
    bench.query("select tide.inbox_create('commands')")
    bench.query("select tide.relay_set_inbox('in', 'commands', %s)", Jsonb(config))


# Looking -----------------------------------------------------------------------------------------------------------


def test_the_list_says_what_was_refused_and_why(bench: Refusing) -> None:
    [number] = bench.bury(code="too_large")
    result = verb(bench, "list")
    assert result.exit_code == 0
    [title, line] = result.stdout.splitlines()
    assert title.split()[:4] == ["id", "pipeline", "message", "code"]
    assert line.split()[:5] == [str(number), "p", "orders:1", "too_large", "1"]
    assert line.rstrip().endswith("no 1")
    assert verb(bench, "list", "p").stdout == result.stdout


def test_what_others_wrote_is_shown_and_not_obeyed(bench: Refusing) -> None:
    hostile = "[red]\x1b]0;title\x07 \x9b2J \u202e \r\nforged [link=file:///]"
    [number] = bench.bury()
    bench.query("update tide.dead_letter set reason = %s, code = %s, key = %s", hostile, hostile, hostile)
    for words in (
        ("list",),
        ("list", "--json"),
        ("show", number),
        ("stats",),
        ("list", hostile),
        ("list", "--x" + hostile),
    ):
        result = verb(bench, *words)
        assert not [c for c in result.output if not c.isprintable() and c != "\n"]
        assert not [line for line in result.output.splitlines() if line.startswith("forged")]
        assert "[red]" in result.output
    assert listed(bench)[0]["reason"] == hostile


def test_no_dead_letters_is_said_and_is_no_error(bench: Refusing) -> None:
    result = verb(bench, "list", "p")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there are no dead letters\n")
    assert listed(bench) == []
    assert json.loads(verb(bench, "stats", "--json").stdout) == []


def test_what_is_not_there_is_an_error_and_says_where_to_look(bench: Refusing) -> None:
    for words in ("list missing", "stats missing", "retry --pipeline missing", "discard --pipeline missing --yes"):
        result = verb(bench, *words.split())
        assert (result.exit_code, "missing" in result.stderr, "does not exist" in result.stderr) == (1, True, True)
    for words in ("show 99", "retry 99", "discard 99 --yes"):
        result = verb(bench, *words.split())
        assert (result.exit_code, "dead letter 99 does not exist" in result.stderr) == (1, True)
        assert "relay dead-letter list" in result.stderr or "tide.relay_dlq_list()" in result.stderr


def test_a_long_list_is_read_in_parts(bench: Refusing) -> None:
    numbers = bench.bury(5)
    first = verb(bench, "list", "--json", "--limit", 2)
    assert [letter["dead_letter_id"] for letter in json.loads(first.stdout)] == numbers[:2]
    assert first.stderr == f"there are more: continue with --after {numbers[1]}\n"
    rest = verb(bench, "list", "--json", "--limit", 3, "--after", numbers[1])
    assert [letter["dead_letter_id"] for letter in json.loads(rest.stdout)] == numbers[2:]
    assert rest.stderr == ""


def test_a_code_is_found_among_others_up_to_the_limit(bench: Refusing) -> None:
    bench.bury(4, code="common")
    rare = bench.bury(3, code="rare")
    bench.bury(2, code="common")
    assert [letter["dead_letter_id"] for letter in listed(bench, "--code", "rare")] == rare
    assert [letter["dead_letter_id"] for letter in listed(bench, "p", "--code", "rare", "--limit", 2)] == rare[:2]
    assert len(listed(bench)) == 9
    assert listed(bench, "--code", "none") == []


def test_everything_that_is_kept_is_shown_and_no_number_loses_a_digit(bench: Refusing) -> None:
    digits = "12345678901234567890.1234567890123456789000"
    [(message,)] = bench.query(
        "select tide.outbox_publish('orders', %s::jsonb, %s::jsonb, 'ключ')",
        f'{{"total": {digits}, "text": "a\\nb", "empty": []}}', '{"type": "paid", "n": 1.50}',
    )  # fmt: skip
    bench.refuse(message)
    bench.drain()
    [number] = bench.dead()
    shown = verb(bench, "show", number)
    assert shown.exit_code == 0
    assert digits in shown.stdout and "1.50" in shown.stdout
    found = json.loads(shown.stdout)
    assert found["payload"]["text"] == "a\nb" and found["payload"]["empty"] == []
    assert (found["dead_letter_id"], found["pipeline"], found["outbox"], found["message_id"], found["key"]) == (
        number, "p", "orders", message, "ключ",
    )  # fmt: skip
    assert (found["code"], found["reason"], found["attempts"]) == ("bad", f"no {message}", 1)
    assert found["headers"]["type"] == "paid"
    assert found["published_at"] <= found["first_failed_at"] == found["failed_at"]
    assert found["retry_requested_at"] is None
    assert not {"inbox", "event_id", "body"} & set(found)
    assert listed(bench) == [found]


def test_what_was_received_is_shown_byte_by_byte(bench: Refusing) -> None:
    receive_only(bench, source_type="stdin")
    lines = b'{"a": \xc3\xbc\n\xff\x00\n'
    assert invoke("receive", "in", "--run", "r", url=bench.database.url, stdin=lines).exit_code == 0
    shown = [json.loads(verb(bench, "show", number).stdout) for number in bench.dead()]
    text, binary = sorted(shown, key=lambda letter: str(letter["event_id"]))
    assert (text["body"], binary["body_base64"]) == ('{"a": ü', "/wA=")
    assert (text["inbox"], text["event_id"], text["subject"]) == ("commands", "stdin/r/1", "stdin")
    assert not {"outbox", "message_id", "payload", "body_base64"} & set(text) and "body" not in binary
    assert "stdin/r/1" in verb(bench, "list", "in").stdout


def test_markup_and_secrets_in_a_reason_do_no_harm(bench: Refusing) -> None:
    bench.bury()
    bench.query("update tide.dead_letter set reason = '[bold]nats://u:hidden-password@h[/] said no', code = '[red]'")
    for words in (["list"], ["list", "--json"], ["show", bench.dead()[0]], ["stats"]):
        output = verb(bench, *words).output
        assert "hidden-password" not in output and "[red]" in output
    assert "[bold]nats://u:***@h[/] said no" in verb(bench, "list").stdout


def test_the_numbers_are_told_by_code(bench: Refusing) -> None:
    bench.bury(2, code="bad")
    bench.bury(1, code="worse")
    [bad, worse] = json.loads(verb(bench, "stats", "p", "--json").stdout)
    assert [(row["code"], row["dead_letters"], row["retrying"]) for row in (bad, worse)] == [
        ("bad", 2, 0), ("worse", 1, 0),
    ]  # fmt: skip
    assert [line.split()[:3] for line in verb(bench, "stats").stdout.splitlines()[1:]] == [
        ["p", "bad", "2"], ["p", "worse", "1"],
    ]  # fmt: skip


# Retrying ----------------------------------------------------------------------------------------------------------


def test_those_that_are_named_are_delivered_by_their_pipeline(bench: Refusing) -> None:
    numbers = bench.bury(3)
    result = verb(bench, "retry", numbers[2], numbers[0], numbers[0])
    assert (result.exit_code, result.stdout) == (0, "asked p to deliver 2 dead letters again\n")
    assert "requested" in verb(bench, "list").stdout
    bench.drain()
    assert bench.received() == [1, 3]
    assert bench.dead() == [numbers[1]]


def test_a_whole_pipeline_is_retried(bench: Refusing) -> None:
    bench.bury(3)
    assert verb(bench, "retry", "--pipeline", "p").stdout == "asked p to deliver 3 dead letters again\n"
    bench.drain()
    assert (bench.received(), bench.dead()) == ([1, 2, 3], [])


def test_where_one_cannot_be_retried_none_is(bench: Refusing) -> None:
    [number] = bench.bury()
    bench.query(
        "insert into tide.dead_letter (pipeline, inbox, event_id, body, code, reason)"
        " values ('p', 'commands', 'a', '{', 'not_json', 'of a pipeline that was there before')"
    )
    for other, said in ((99, "does not exist"), (bench.dead()[-1], 'of another pipeline "p"')):
        result = verb(bench, "retry", number, other)
        assert (result.exit_code, said in result.stderr) == (1, True)
        assert [letter["retry_requested_at"] for letter in listed(bench)] == [None, None]


def test_a_disabled_pipeline_is_asked_and_said_to_be_disabled(bench: Refusing) -> None:
    [number] = bench.bury()
    bench.query("select tide.relay_disable('p')")
    result = verb(bench, "retry", number)
    assert result.exit_code == 0
    assert "pipeline p is disabled" in result.stderr and "relay pipeline enable p" in result.stderr


def test_where_nobody_drains_nobody_retries(bench: Refusing) -> None:
    receive_only(bench, source_type="stdin")
    assert invoke("receive", "in", url=bench.database.url, stdin="{").exit_code == 0
    bench.query(
        "select tide.inbox_create('events'),"
        """ tide.relay_set_inbox('hooks', 'events', '{"source_type": "webhook", "signature_scheme": "none"}')"""
    )
    bench.query(
        "insert into tide.dead_letter (pipeline, inbox, event_id, body, code, reason)"
        " values ('hooks', 'events', 'a', '{', 'not_json', 'no')"
    )
    for pipeline, brought_by in (("in", "relay receive in"), ("hooks", "relay api")):
        [letter] = listed(bench, pipeline)
        for words in ([letter["dead_letter_id"]], ["--pipeline", pipeline]):
            result = verb(bench, "retry", *words)
            assert result.exit_code == 1
            assert brought_by in result.stderr and "send it again" in result.stderr
    assert [letter["retry_requested_at"] for letter in listed(bench)] == [None, None]


def test_what_is_left_of_a_pipeline_that_is_gone_can_be_seen_and_discarded(bench: Refusing) -> None:
    [number] = bench.bury()
    bench.query("select tide.relay_delete('p')")
    assert len(listed(bench, "p")) == 1
    result = verb(bench, "retry", number)
    assert (result.exit_code, "pipeline p does not exist" in result.stderr) == (1, True)
    assert verb(bench, "discard", "--pipeline", "p", "--yes").stdout == "discarded 1 dead letter\n"


# Discarding --------------------------------------------------------------------------------------------------------


def test_those_that_are_named_are_discarded(bench: Refusing) -> None:
    numbers = bench.bury(3)
    result = verb(bench, "discard", *numbers[:2], numbers[0], "--yes")
    assert (result.exit_code, result.stdout) == (0, "discarded 2 dead letters\n")
    assert bench.dead() == numbers[2:]


def test_where_one_is_not_there_none_is_discarded(bench: Refusing) -> None:
    [number] = bench.bury()
    assert verb(bench, "discard", number, 99, "--yes").exit_code == 1
    assert bench.dead() == [number]


def test_only_what_is_old_enough_is_discarded(bench: Refusing) -> None:
    old, new = bench.bury(2)
    bench.query("update tide.dead_letter set failed_at = now() - interval '8 days' where dead_letter_id = %s", old)
    result = verb(bench, "discard", "--pipeline", "p", "--older-than", "7d", "--yes")
    assert result.stdout == "discarded 1 dead letter\n"
    assert bench.dead() == [new]
    assert (
        verb(bench, "discard", "--pipeline", "p", "--older-than", "192h", "--yes").stdout
        == "discarded 0 dead letters\n"
    )
    assert verb(bench, "discard", "--pipeline", "p", "--yes").stdout == "discarded 1 dead letter\n"


def test_without_a_terminal_it_needs_yes(bench: Refusing) -> None:
    numbers = bench.bury(2)
    for words in ([numbers[0]], ["--pipeline", "p"]):
        result = verb(bench, "discard", *words, stdin="y\n")
        assert (result.exit_code, "give --yes" in result.stderr) == (1, True)
    assert bench.dead() == numbers


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_at_a_terminal_it_asks(bench: Refusing, tmp_path: Path, answer: bytes, code: int) -> None:
    [number] = bench.bury()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        arguments = [str(RELAY), "dead-letter", "discard", str(number), "--postgres-url", bench.database.url]
        os.execve(RELAY, arguments, environment())
    said = b""

    def asked() -> bool:
        nonlocal said
        said += os.read(terminal, 1000)
        return b"[y/N]" in said

    wait_until(asked, 20)
    assert f"Delete dead letter {number} permanently?".encode() in said
    os.write(terminal, answer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    os.close(terminal)
    assert bench.dead() == ([] if code == 0 else [number])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry",), "one of the two"),
        (("retry", "1", "--pipeline", "p"), "one of the two"),
        (("discard", "--yes"), "one of the two"),
        (("discard", "1", "--older-than", "7d", "--yes"), "--older-than is for --pipeline"),
        (("discard", "--pipeline", "p", "--older-than", "7", "--yes"), "is not an age"),
        (("discard", "--pipeline", "p", "--older-than", "7 days", "--yes"), "is not an age"),
        (("show", "0"), "not in the range"),
        (("show", "9223372036854775808"), "not in the range"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_said_before_any_database_is_asked(words: tuple[str, ...], said: str) -> None:
    result = invoke("dead-letter", *words, url=NOWHERE)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True), result.stderr
