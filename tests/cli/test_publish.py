"""`relay publish`: what stands on the lines is what the outbox holds."""

import json
import os
import pty
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import RELAY, environment, invoke, run
from tests.paths import DATA
from tests.services.postgres import Database


def messages(database: Database, outbox: str = "o") -> list[tuple[Any, ...]]:
    statement = """select m.key, m.headers::text, m.payload::text
                     from tide.message m join tide.outbox o using (outbox_id) where o.name = %s order by m.id"""
    with database.connect() as connection:
        return connection.execute(statement, [outbox]).fetchall()


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def test_a_line_with_a_payload_gives_key_headers_type_and_payload(database: Database) -> None:
    line = '{"key": "k", "headers": {"a": 1}, "type": "order.created", "payload": {"n": 1}}'
    result = invoke("publish", "o", "--create", url=database.url, stdin=line)
    assert result.exit_code == 0, result.output
    assert result.stdout == "published 1 message to o, ids 1 to 1\n"
    [(key, headers, payload)] = messages(database)
    assert (key, json.loads(headers), json.loads(payload)) == ("k", {"a": 1, "type": "order.created"}, {"n": 1})


@pytest.mark.parametrize("stdin", ["", "1\n"])
def test_an_outbox_that_takes_nothing_is_refused_also_when_nothing_is_given(database: Database, stdin: str) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('off'), tide.job_queue_create('mail')")
        connection.execute("select tide.outbox_disable('off')")
    for outbox, said in (
        ("nope", 'outbox "nope" does not exist'),
        ("off", 'outbox "off" is disabled'),
        ("jobs/mail", "is a queue of jobs"),
    ):
        result = invoke("publish", outbox, url=database.url, stdin=stdin)
        assert (result.exit_code, result.stdout, said in result.stderr) == (1, "", True), result.output
        assert "Published nothing" in result.stderr


@pytest.mark.parametrize("line", ['{"n": 1}', "42", "null", '"text"', "[1, 2]", "{}", '{"key": "k", "type": "t"}'])
def test_any_other_line_is_the_payload(database: Database, line: str) -> None:
    assert invoke("publish", "o", "--create", url=database.url, stdin=line).exit_code == 0
    [(key, headers, payload)] = messages(database)
    assert (key, headers, json.loads(payload)) == (None, "{}", json.loads(line))


def test_the_awkward_file_arrives_whole_and_in_order(database: Database) -> None:
    file = DATA / "awkward.jsonl"
    result = invoke("publish", "o", "--create", "--file", file, url=database.url)
    assert result.exit_code == 0, result.output
    given = [exact(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
    wrapped = [isinstance(value, dict) and "payload" in value for value in given]
    expected = [value["payload"] if inside else value for value, inside in zip(given, wrapped, strict=True)]
    found = messages(database)
    assert [exact(payload) for _, _, payload in found] == expected
    keys = [value.get("key") if inside else None for value, inside in zip(given, wrapped, strict=True)]
    assert [key for key, _, _ in found] == keys
    assert '{"n": 9007199254740993, "type": "wins"}' in [headers for _, headers, _ in found]


def test_no_number_loses_a_digit(database: Database) -> None:
    line = '{"payload": {"id": 12345678901234567890123, "price": 0.10000000000000000001}}'
    assert invoke("publish", "o", "--create", url=database.url, stdin=line).exit_code == 0
    assert messages(database)[0][2] == '{"id": 12345678901234567890123, "price": 0.10000000000000000001}'


def test_real_events_arrive_equal_and_in_order(database: Database) -> None:
    file = DATA / "github-events.jsonl"
    result = invoke("publish", "o", "--create", "--file", file, "--json", url=database.url)
    assert json.loads(result.stdout) == {"outbox": "o", "published": 170, "first_id": 1, "last_id": 170}
    events = lines_of(file)
    found = [(key, json.loads(headers), json.loads(payload)) for key, headers, payload in messages(database)]
    assert found == [(event["key"], {"type": event["type"]}, event["payload"]) for event in events]


def test_transactions_have_500_lines(database: Database) -> None:
    text = "".join(f"{number}\n" for number in range(1201))
    assert invoke("publish", "o", "--create", url=database.url, stdin=text).exit_code == 0
    with database.connect() as connection:
        statement = "select count(*) from tide.message group by xmin order by min(id)"
        assert connection.execute(statement).fetchall() == [(500,), (500,), (201,)]


def test_large_lines_make_transactions_of_fewer(database: Database) -> None:
    text = "".join(f'"{number:0>900000}"\n' for number in range(40))
    assert invoke("publish", "o", "--create", url=database.url, stdin=text).exit_code == 0
    with database.connect() as connection:
        assert connection.execute("select count(distinct xmin::text) from tide.message").fetchone() == (3,)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"a": 1', "not JSON"),
        ("{}  {}", "more text after the value, at column 5"),
        ("NaN", "NaN is not a JSON value"),
        ('{"payload": 1, "key": 7}', "key must be a string or null"),
        ('{"payload": 1, "headers": [1]}', "headers must be an object or null"),
        ('{"payload": 1, "type": 7}', "type must be a string or null"),
        ('{"payload": 1, "key": "\\u0000"}', "key has a character that PostgreSQL cannot keep"),
        ('{"payload": 1, "key": "\\ud800"}', "key has a character that PostgreSQL cannot keep"),
        ('{"a": "\\u0000"}', "PostgreSQL refuses it: unsupported Unicode escape sequence"),
        ('"' + "x" * 1_048_600 + '"', 'its limit is 1048576'),
        ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
    ],
    ids=["cut-off", "two-values", "nan", "key", "headers", "type", "nul-key", "surrogate", "nul", "too-large", "deep"],
)  # fmt: skip
def test_a_bad_line_is_named_and_nothing_of_its_transaction_is_published(
    database: Database, bad: str, reason: str
) -> None:
    text = "1\n" * 520 + "\n" + bad + "\n" + "2\n" * 10
    result = invoke("publish", "o", "--create", url=database.url, stdin=text)
    assert result.exit_code == 1
    assert "relay publish: line 522: " in result.stderr and reason in result.stderr
    assert "Published 500 messages, up to line 500" in result.stderr
    assert result.stdout == ""
    assert len(messages(database)) == 500


def test_bytes_that_are_no_text_are_a_bad_line(database: Database) -> None:
    result = invoke("publish", "o", "--create", url=database.url, stdin=b'1\n"\xff"\n')
    assert result.exit_code == 1
    assert "line 2: not UTF-8: byte 2 of the line. Published nothing" in result.stderr


def test_a_line_far_above_the_limit_of_the_outbox_is_refused_before_it_is_read_whole(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('o', max_payload_bytes => 1000)")
    result = invoke("publish", "o", url=database.url, stdin='1\n"' + "x" * 9000 + '"\n')
    assert result.exit_code == 1
    assert "line 2: longer than 8000 bytes" in result.stderr
    assert messages(database) == []


def test_members_that_mean_nothing_are_told(database: Database) -> None:
    result = invoke("publish", "o", "--create", url=database.url, stdin='{"payload": 1, "id": 7, "version": 1}')
    assert result.exit_code == 0
    assert "ignored: id, version" in result.stderr


def test_an_unknown_outbox_is_refused_with_a_hint(database: Database) -> None:
    result = invoke("publish", "nowhere", url=database.url, stdin="1")
    assert result.exit_code == 1
    assert 'outbox "nowhere" does not exist' in result.stderr and "tide.outbox_create" in result.stderr
    assert "Published nothing" in result.stderr


def test_a_disabled_outbox_is_refused_with_a_hint(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('o'), tide.outbox_disable('o')")
    result = invoke("publish", "o", url=database.url, stdin="1")
    assert result.exit_code == 1
    assert 'outbox "o" is disabled' in result.stderr and "tide.outbox_enable" in result.stderr


def test_the_rights_of_a_publisher_are_enough(database: Database) -> None:
    role = f"publisher_{database.name}"
    with database.admin() as admin:
        admin.execute(f"create role {role} login password 'p'")
    with database.connect() as connection:
        connection.execute(f"select tide.outbox_create('o'), tide.grant_publisher('{role}')")
    url = database.server.process.url_of(database.name, role, "p")
    assert invoke("publish", "o", url=url, stdin="1").exit_code == 0
    assert len(messages(database)) == 1


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    assert run("publish", "o", "--file", "nowhere.jsonl", cwd=tmp_path).returncode == 2


def test_a_terminal_sees_a_progress_bar(database: Database, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    command = [str(RELAY), "publish", "o", "--create", "--file", str(DATA / "github-events.jsonl")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(RELAY_POSTGRES_URL=database.url, TERM="xterm"),
        stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=False,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert done.stdout == b"published 170 messages to o, ids 1 to 170\n"
    assert "messages: 170" in shown and "100%" in shown
