"""`relay history`: who changed a pipeline, when, and what exactly, with every secret masked."""

import json
from typing import Any

import pytest

from relay.operations.history import changes
from tests.cli.command import invoke
from tests.services.postgres import Database


@pytest.fixture
def url(database: Database) -> str:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders'), tide.outbox_create('bills')")
    return database.url


def put(url: str, config: dict[str, Any], outbox: str = "orders", name: str = "p") -> None:
    assert invoke("pipeline", "set", name, outbox, "--config", json.dumps(config), url=url).exit_code == 0


def told(url: str, *words: str) -> list[dict[str, Any]]:
    result = invoke("history", *words, "--json", url=url)
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_only_what_differs_is_told_old_and_new(url: str, database: Database) -> None:
    put(url, {"sink_type": "stdout", "batch_size": 10, "slice_ms": 500})
    put(url, {"sink_type": "stdout", "batch_size": 20, "poll_interval_ms": 100})
    invoke("pipeline", "disable", "p", url=url)
    put(url, {"sink_type": "stdout"}, "bills")
    [made, changed, disabled, moved] = told(url, "p")
    assert (made["action"], made["changes"]["config.sink_type"]) == ("create", {"new": "stdout"})
    assert changed["changes"] == {
        "config.batch_size": {"old": 10, "new": 20},
        "config.slice_ms": {"old": 500},
        "config.poll_interval_ms": {"new": 100},
    }
    assert (disabled["action"], disabled["changes"]) == ("disable", {"enabled": {"old": True, "new": False}})
    assert moved["changes"]["outbox"] == {"old": "orders", "new": "bills"}
    with database.connect() as connection:
        [(who,)] = connection.execute("select session_user").fetchall()
    assert {(entry["changed_by"], entry["program"]) for entry in (made, changed, disabled, moved)} == {
        (who, "tide-relay pipeline")
    }


def test_people_read_lines(url: str) -> None:
    put(url, {"sink_type": "stdout", "batch_size": 10, "slice_ms": 500})
    put(url, {"sink_type": "stdout", "batch_size": 20, "poll_interval_ms": 100})
    invoke("pipeline", "delete", "p", "--yes", url=url)
    text = invoke("history", url=url).stdout
    assert "config.batch_size: 10 → 20" in text
    assert "config.slice_ms: 500 → (none)" in text
    assert "config.poll_interval_ms: 100" in text
    assert [word for word in text.split() if word in ("create", "change", "delete")] == ["create", "change", "delete"]
    assert text.splitlines()[-1].split()[-1] == "delete", "what it was is known from what came before"


def test_a_secret_is_masked_and_its_change_is_told(url: str) -> None:
    for password in ("first-secret", "second-secret"):
        config = {"sink_type": "nats", "url": f"nats://u:{password}@h:4222", "stream": "s", "user": "u"}
        put(url, config | {"password": password})
    put(url, config | {"password": "${env:NATS_PASSWORD}"})
    text = invoke("history", "p", url=url).output
    assert '"***" (a secret in it has changed)' in text
    assert 'config.password: "***" → "${env:NATS_PASSWORD}"' in text
    assert "first-secret" not in text + str(told(url)) and "second-secret" not in text + str(told(url))
    assert set(told(url)[1]["changes"]) == {"config.url", "config.password"}


def test_one_that_is_gone_has_its_history(url: str) -> None:
    put(url, {"sink_type": "stdout"})
    invoke("pipeline", "delete", "p", "--yes", url=url)
    assert [entry["action"] for entry in told(url, "p")] == ["create", "delete"]


def test_the_last_changes_come_last_and_only_so_many(url: str) -> None:
    for size in (1, 2, 3, 4):
        put(url, {"sink_type": "stdout", "batch_size": size})
    put(url, {"sink_type": "stdout"}, name="q")
    sizes = [entry["changes"]["config.batch_size"]["new"] for entry in told(url, "p", "--limit", "2")]
    assert sizes == [3, 4]
    assert [entry["pipeline"] for entry in told(url)] == ["p"] * 4 + ["q"]


def test_a_misspelt_pipeline_is_an_error_and_no_history_is_none(url: str, database: Database) -> None:
    result = invoke("history", "missing", url=url)
    assert (result.exit_code, "pipeline missing does not exist" in result.stderr) == (1, True)
    assert told(url) == []
    put(url, {"sink_type": "stdout"})
    with database.connect() as connection:
        connection.execute("delete from tide.pipeline_history")
    result = invoke("history", "p", url=url)
    assert (result.exit_code, result.stderr) == (0, "no change is known\n")


@pytest.mark.parametrize(("old", "new"), [(1, True), (None, "missing"), ({"a": 1}, {"a": 2}), ([1, 2], [2, 1])])
def test_values_that_python_takes_for_equal_are_told_apart(old: Any, new: Any) -> None:
    before = {"enabled": True, "config": {"x": old}}
    after = {"enabled": True, "config": {} if new == "missing" else {"x": new}}
    assert list(changes(before, after)) == ["config.x"]
    assert changes(before, before) == {}
