"""`relay replay` and `relay replays`: the pipeline itself delivers a range again; it is watched, and cancelled."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import invoke, start
from tests.cli.dead_letters import Refusing
from tests.services.postgres import Database
from tests.waiting import wait_until

NOWHERE = "postgresql://unknown@127.0.0.1:1/none"


@pytest.fixture
def bench(database: Database) -> Iterator[Refusing]:
    made = Refusing(database)
    yield made
    made.close()


def delivered(bench: Refusing, count: int) -> list[int]:
    ids = list(bench.publish(count))
    bench.drain()
    assert bench.received() == ids
    return ids


def verb(bench: Refusing, *words: object) -> Any:
    return invoke(*map(str, words), url=bench.database.url)


def replays(bench: Refusing) -> Any:
    return json.loads(verb(bench, "replays", "list", "--json").stdout)


def test_a_range_is_delivered_once_more(bench: Refusing) -> None:
    ids = delivered(bench, 5)
    result = verb(bench, "replay", "p", ids[1], ids[3])
    assert (result.exit_code, result.stdout) == (0, "replay 1 of p, ids 2 to 4, is requested\n")
    assert [row["state"] for row in replays(bench)] == ["waiting"]
    bench.drain()
    assert bench.received() == [*ids, *ids[1:4]]
    [ended] = replays(bench)
    assert (ended["state"], ended["delivered"], ended["next_id"]) == ("ended", 3, ids[4])
    assert bench.query("select offset_id from tide.consumer_group") == [(ids[-1],)]
    line = verb(bench, "replays", "list", "p").stdout.splitlines()[1].split()
    assert line[:8] == ["1", "p", "2", "4", "5", "3", "0", "ended"]


def test_without_an_end_it_is_everything_settled(bench: Refusing) -> None:
    ids = delivered(bench, 3)
    assert "ids 2 to 3," in verb(bench, "replay", "p", ids[1]).stdout


def test_a_time_finds_the_ids_and_says_what_retention_has_removed(bench: Refusing) -> None:
    delivered(bench, 6)
    bench.publish(1)
    bench.query("update tide.message set created_at = '2026-03-01 12:00+00'::timestamptz + id * interval '1 minute'")
    span = ("--since", "2026-03-01T13:02:00+01:00", "--until", "2026-03-01T12:05:00Z")
    result = verb(bench, "replay", "p", *span)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "replay 1 of p, ids 2 to 4, is requested\n"
    assert "ids 5 to 6," in verb(bench, "replay", "p", "--since", "2026-03-01 12:05").stdout, "up to the offset"
    preview = json.loads(verb(bench, "replay", "p", "--until", "2026-03-01T12:03Z", "--dry-run", "--json").stdout)
    assert (preview["first_id"], preview["last_id"]) == (1, 2)
    bench.query("delete from tide.message where id < 4")
    cut = verb(bench, "replay", "p", *span)
    assert cut.stdout == "replay 3 of p, ids 4 to 4, is requested\n"
    assert "the outbox keeps messages from 4 on, published 2026-03-01 12:04:00 UTC" in cut.stderr
    gone = verb(bench, "replay", "p", "--until", "2026-03-01T12:03:00Z")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert 'outbox "orders" keeps no message of that time that pipeline "p" has settled' in gone.stderr
    assert "It keeps messages from 4 on, which was published at 2026-03-01 12:04:00 UTC" in gone.stderr


def test_a_dry_run_tells_what_would_be_delivered_and_asks_for_nothing(bench: Refusing) -> None:
    bench.bury()
    bench.publish(4)
    bench.drain()
    result = verb(bench, "replay", "p", 1, 3, "--dry-run")
    assert result.exit_code == 0
    [counts, first, last, kept] = result.stdout.splitlines()
    assert counts.startswith("3 messages, ") and counts.endswith(" bytes, dead letters among them: 1")
    assert first.startswith("first: 1, published 20") and last.startswith("last: 3, published 20")
    assert kept == "the outbox keeps messages from 1 on"
    preview = json.loads(verb(bench, "replay", "p", 1, 3, "--dry-run", "--json").stdout)
    assert (preview["pipeline"], preview["messages"], preview["oldest_kept_id"]) == ("p", 3, 1)
    assert replays(bench) == []


def test_a_dry_run_of_what_is_gone_says_so(bench: Refusing) -> None:
    delivered(bench, 3)
    bench.query("delete from tide.message where id < 3")
    result = verb(bench, "replay", "p", 1, 2, "--dry-run")
    assert result.stdout.splitlines()[1:] == ["the outbox keeps messages from 3 on"]
    assert result.stdout.startswith("0 messages, 0 bytes")
    bench.query("delete from tide.message")
    assert "the outbox keeps no message" in verb(bench, "replay", "p", 1, 2, "--dry-run").stdout


def waiting(bench: Refusing, folder: Path) -> "subprocess.Popen[str]":
    """The verb in a process of its own, which has asked for a replay and waits for its end."""
    url = bench.database.url
    process = start("replay", "p", "1", "2", "--wait", "30", "--postgres-url", url, cwd=folder, stderr=subprocess.PIPE)
    wait_until(lambda: bench.query("select 1 from tide.replay where ended_at is null"), 20)
    assert process.poll() is None
    return process


def test_waiting_ends_with_the_replay(bench: Refusing, tmp_path: Path) -> None:
    ids = delivered(bench, 2)
    bench.refuse(ids[0])
    process = waiting(bench, tmp_path)
    bench.drain()
    assert process.communicate(timeout=30) == ("replay 1 has ended: 1 delivered, 1 dead letter\n", "")
    assert process.returncode == 0


def test_waiting_for_what_is_taken_back_is_an_error(bench: Refusing, tmp_path: Path) -> None:
    delivered(bench, 2)
    for statement, said in (
        ("select tide.relay_replay_cancel(1)", "replay 1 was cancelled: 0 delivered, 0 dead letters"),
        ("select tide.relay_delete('p')", "replay 2 is gone: pipeline p was deleted"),
    ):
        process = waiting(bench, tmp_path)
        bench.query(statement)
        assert process.communicate(timeout=30) == ("", f"relay replay: {said}\n")
        assert process.returncode == 1


def test_waiting_has_an_end_and_the_replay_goes_on(bench: Refusing) -> None:
    delivered(bench, 2)
    result = verb(bench, "replay", "p", 1, 2, "--wait", 0.3)
    assert result.exit_code == 1
    assert result.stderr.startswith("relay replay: replay 1 has not ended in 0.3 s: 0 delivered")
    assert "relay replays list p" in result.stderr and "Traceback" not in result.output
    bench.drain()
    assert [row["state"] for row in replays(bench)] == ["ended"]


def test_a_replay_is_cancelled_and_delivers_nothing_more(bench: Refusing) -> None:
    ids = delivered(bench, 3)
    verb(bench, "replay", "p", 1, 3)
    assert verb(bench, "replays", "cancel", 1).stdout == "replay 1 is cancelled\n"
    assert verb(bench, "replays", "cancel", 1).stdout == "replay 1 had already ended\n"
    assert [row["state"] for row in replays(bench)] == ["cancelled"]
    bench.drain()
    assert bench.received() == ids


def test_a_disabled_pipeline_is_asked_and_said_to_be_disabled(bench: Refusing) -> None:
    delivered(bench, 2)
    bench.query("select tide.relay_disable('p')")
    result = verb(bench, "replay", "p", 1, 2)
    assert (result.exit_code, "pipeline p is disabled" in result.stderr) == (0, True)


def test_what_cannot_be_is_said_with_what_to_do(bench: Refusing) -> None:
    delivered(bench, 2)
    for words, said in (
        ("replay missing 1 2", "missing"),
        ("replay p 1 9", "Replay up to 2 at most"),
        ("replay p 1 9 --dry-run", "Replay up to 2 at most"),
        ("replay p 2 1", "from 2 to 1 is no range of ids"),
        ("replays list missing", "pipeline missing does not exist"),
        ("replays cancel 99", "replay 99 does not exist"),
    ):
        result = verb(bench, *words.split())
        assert (result.exit_code, said in result.stderr) == (1, True), words
    assert replays(bench) == []


@pytest.mark.parametrize(
    "words", ["", "1 --since 2026-03-01", "--since then", "0 2", "x", "1 9223372036854775808", "1 --dry-run --wait 3"]
)
def test_wrong_usage_is_said_before_any_database_is_asked(words: str) -> None:
    assert invoke("replay", "p", *words.split(), url=NOWHERE).exit_code == 2


def test_no_replays_is_said_and_is_no_error(bench: Refusing) -> None:
    result = verb(bench, "replays", "list", "p")
    assert (result.exit_code, result.stdout, "there are no replays" in result.stderr) == (0, "", True)
