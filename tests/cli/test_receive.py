"""`relay receive`: what stands on the lines is what the inbox holds."""

import json
import os
import re
import subprocess
from typing import Any

import pytest

from relay.backends.registry import source_class
from relay.backends.stdio.source import StdinSource
from relay.errors import ConfigError
from relay.operations.input_lines import Splitter
from tests.cli.command import RELAY, environment, invoke
from tests.services.postgres import Database
from tests.waiting import wait_until

LINES = b'{"n": 1}\n\n{"n": 2}\n"three"'


@pytest.fixture
def pipeline(database: Database) -> str:
    make(database)
    return "lines"


def make(database: Database, **keys: Any) -> None:
    with database.connect() as connection:
        connection.execute("select tide.inbox_create('orders_in')")
        config = json.dumps({"source_type": "stdin"} | keys)
        connection.execute("select tide.relay_set_inbox('lines', 'orders_in', %s::jsonb)", [config])


def stored(database: Database) -> list[Any]:
    with database.connect() as connection:
        return [row[0] for row in connection.execute("select payload from tide.orders_in order by ctid").fetchall()]


def dead_letters(database: Database) -> list[tuple[Any, ...]]:
    statement = "select event_id, body, code from tide.dead_letter order by event_id"
    with database.connect() as connection:
        return connection.execute(statement).fetchall()


def test_each_line_is_a_row(database: Database, pipeline: str) -> None:
    result = invoke("receive", pipeline, "--run", "r", url=database.url, stdin=LINES)
    assert result.exit_code == 0, result.output
    assert result.stdout == "stored 3 messages in orders_in (run r)\n"
    assert stored(database) == [{"n": 1}, {"n": 2}, "three"]
    with database.connect() as connection:
        ids = [row[0] for row in connection.execute("select event_id from tide.orders_in order by ctid").fetchall()]
    assert ids == ["stdin/r/1", "stdin/r/3", "stdin/r/4"]


def test_the_same_input_under_the_same_name_is_stored_once(database: Database, pipeline: str) -> None:
    for _ in range(2):
        result = invoke("receive", pipeline, "--run", "r", "--json", url=database.url, stdin=LINES)
    assert (json.loads(result.stdout)["stored"], json.loads(result.stdout)["known"]) == (0, 3)
    assert len(stored(database)) == 3


def test_without_a_name_each_call_is_an_input_of_its_own(database: Database, pipeline: str) -> None:
    for _ in range(2):
        assert invoke("receive", pipeline, url=database.url, stdin=LINES).exit_code == 0
    assert len(stored(database)) == 6


def test_the_event_id_may_be_in_the_line(database: Database) -> None:
    make(database, event_id="$.id")
    for _ in range(2):
        result = invoke("receive", "lines", url=database.url, stdin=b'{"id": "a"}\n{"id": "b"}\n')
    assert result.exit_code == 0, result.output
    assert stored(database) == [{"id": "a"}, {"id": "b"}]


def test_a_line_that_cannot_be_stored_is_a_dead_letter_once_and_its_neighbours_are_rows(
    database: Database, pipeline: str
) -> None:
    lines = b'{"n": 1}\nnot json\n{"n": "\\u0000"}\n\xff\n{"n": 2}\n'
    for expected in ((2, 0, 3), (0, 2, 3)):
        result = invoke("receive", pipeline, "--run", "r", "--json", url=database.url, stdin=lines)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["stored"], found["known"], found["dead_letters"]) == expected
    assert stored(database) == [{"n": 1}, {"n": 2}]
    assert [(name, bytes(body)) for name, body, _ in dead_letters(database)] == [
        ("stdin/r/2", b"not json"),
        ("stdin/r/3", b'{"n": "\\u0000"}'),
        ("stdin/r/4", b"\xff"),
    ]


def test_or_it_ends_the_input_and_says_how_to_go_on(database: Database) -> None:
    make(database, on_invalid="stop", batch_size=1)
    result = invoke("receive", "lines", "--run", "r", url=database.url, stdin=b'{"n": 1}\nnot json\n{"n": 2}\n')
    assert result.exit_code == 1
    assert "line 2 cannot be stored" in result.stderr
    assert "Stored up to line 1. Continue with --run r" in result.stderr
    assert (stored(database), dead_letters(database)) == ([{"n": 1}], [])


def test_a_line_that_is_too_long_is_a_dead_letter_and_not_held_in_memory(database: Database) -> None:
    make(database, max_line_bytes=1024, max_message_bytes=1024)
    lines = b'{"n": 1}\n"' + b"x" * 3_000_000 + b'"\n{"n": 2}\n'
    assert invoke("receive", "lines", url=database.url, stdin=lines).exit_code == 0
    assert stored(database) == [{"n": 1}, {"n": 2}]
    [(_, body, code)] = dead_letters(database)
    assert (len(body), code) == (1025, "too_large")


def test_what_a_program_writes_is_stored_while_it_runs(database: Database, pipeline: str) -> None:
    variables, pipe = environment(RELAY_POSTGRES_URL=database.url), subprocess.PIPE
    with subprocess.Popen([str(RELAY), "receive", pipeline], env=variables, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        for number in (1, 2):
            os.write(process.stdin.fileno(), b'{"n": %d}\n' % number)
            wait_until(lambda: len(stored(database)) == number, 30)  # noqa: B023
        output, _ = process.communicate(b'{"n": 3}', timeout=30)
    assert process.returncode == 0
    assert re.fullmatch(rb"stored 3 messages in orders_in \(run \S+\)\n", output)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        ("select tide.relay_delete('lines')", "pipeline lines does not exist"),
        ("select tide.relay_disable('lines')", "is disabled"),
        ("""select tide.relay_set_inbox('lines', 'orders_in', '{"source_type": "memory"}')""", "standard input"),
    ],
)
def test_what_is_not_there_is_said(database: Database, pipeline: str, spoil: str, complaint: str) -> None:
    with database.connect() as connection:
        connection.execute(spoil.encode())
    result = invoke("receive", pipeline, url=database.url, stdin=LINES)
    assert result.exit_code == 1
    assert complaint in result.stderr


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_their_bytes_come(size: int) -> None:
    data = b"\xef\xbb\xbfone\r\n\n  \ntwo\n" + b"x" * 40 + b"\n" + b"y" * 10 + b"\r\n" + b"z" * 11 + b"\nlast"
    splitter = Splitter(10)
    lines = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    lines += splitter.finish()
    assert [(line.number, line.body) for line in lines] == [
        (1, b"one"),
        (4, b"two"),
        (5, b"x" * 11),
        (6, b"y" * 10),
        (7, b"z" * 11),
        (8, b"last"),
    ]


def test_a_worker_does_not_drain_it() -> None:
    kind = source_class("stdin")
    assert kind is StdinSource
    assert kind.features.passive
    with pytest.raises(ConfigError, match="relay receive lines"):
        kind(kind.config_model(), "lines").open({})
