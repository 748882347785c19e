"""Verbs that list results end alike: JSON, a table, or a remark. A table fits its terminal, and hides nothing."""

import json
from itertools import product

import pytest
from rich.cells import cell_len

from relay.cli import base
from tests.cli.command import invoke
from tests.services.postgres import Database


@pytest.mark.parametrize(
    "verb",
    [
        ("jobs", "queue", "list"),
        ("jobs", "schedule", "list"),
        ("jobs", "stats"),
        ("jobs", "workers"),
        ("pipeline", "list"),
        ("outbox", "list"),
        ("inbox", "list"),
        ("stream", "list"),
        ("stream", "snapshot", "list"),
    ],
    ids=" ".join,
)
def test_nothing_is_a_remark_with_what_to_do_and_for_programs_an_empty_list(
    database: Database, verb: tuple[str, ...]
) -> None:
    result = invoke(*verb, url=database.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "; " in result.stderr and ": relay " in result.stderr
    assert json.loads(invoke(*verb, "--json", url=database.url).stdout) == []


LONG = "a-rather-long-name-of-a-thing-that-has-to-be-shown"
REASON = "the receiver answered 422 and says that the field 送り先 of the order must not be empty, in the order 4711"


@pytest.fixture
def filled(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute(f"""
            select tide.outbox_create('{LONG}'), tide.relay_set_outbox('{LONG}', '{LONG}', '{{"sink_type": "memory"}}'),
                   tide.outbox_publish('{LONG}', '1'), tide.job_queue_create('{LONG}'),
                   tide.job_enqueue('{LONG}', '{LONG}'),
                   tide.job_schedule_set('{LONG}', '{LONG}', '30 2 * * *', '{LONG}', time_zone => 'Europe/Berlin')""")
        connection.execute("update tide.pipeline set invalid_reason = %s", [REASON])
        connection.execute("update tide.job_schedule set invalid_reason = %s", [REASON])
        connection.execute(
            "insert into tide.dead_letter (pipeline, outbox, message_id, payload, code, reason)"
            " values (%s, %s, 1, '1', 'http_422', %s)",
            [LONG, LONG, REASON],
        )
        connection.execute("update tide.consumer_group set offset_id = 1")
        connection.execute(f"select tide.relay_replay('{LONG}', 1)")
    return database


LISTS = {
    ("pipeline", "list"): (LONG, REASON, "invalid"),
    ("dead-letter", "list"): (LONG, REASON, "http_422"),
    ("dead-letter", "stats"): (LONG, "http_422"),
    ("replays", "list"): (LONG, "tide_owner"),
    ("history",): (LONG, "sink_type"),
    ("jobs", "list"): (LONG, "0/10", "due"),
    ("jobs", "stats"): (LONG,),
    ("jobs", "queue", "list"): (LONG, REASON),
    ("jobs", "schedule", "list"): (LONG, "30 2 * * *", "Europe/Berlin", REASON),
    ("status",): (LONG, REASON),
}


def test_a_table_fits_its_terminal_and_shows_everything(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for width, (verb, values) in product((60, 80, 120, 220), LISTS.items()):
        monkeypatch.setattr(base, "WIDTH_ELSEWHERE", width)
        printed = invoke(*verb, url=filled.url).stdout
        assert max(map(cell_len, printed.splitlines())) <= width, printed
        for value in values:
            assert found(value, printed), f"{value!r} of {verb} is not in:\n{printed}"


def found(value: str, printed: str) -> bool:
    """Whether all of it is there, though it may be folded, beside what else its lines show."""
    if "".join(value.split()) in "".join(printed.split()):
        return True
    rest = value.replace(" ", "")
    for line in printed.splitlines():
        for word in line.split():
            if rest and rest.startswith(word):
                rest = rest.removeprefix(word)
    return not rest
