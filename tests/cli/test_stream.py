"""`relay stream`: what is shown of stream tables, and what becomes of them, for people and for programs."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cli.command import invoke
from tests.services.postgres import Database
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, refresh

Relay = Callable[..., str]


@pytest.fixture
def db(database: Database) -> Iterator[Connection]:
    """With a stream table that was filled and then followed one change."""
    with database.connect() as connection:
        connection.execute("create table sales (id int primary key, region text, amount numeric)")
        create(connection, "sums", "select region, sum(amount) as amount from sales group by region", schedule="5s")
        analyse_and_keep(connection, "sums")
        refresh(connection, "sums")
        connection.execute("insert into sales values (1, 'north', 5)")
        refresh(connection, "sums")
        yield connection


@pytest.fixture
def relay(database: Database) -> Relay:
    def run(*words: str, fails: bool = False) -> str:
        done = invoke("stream", *words, url=database.url)
        assert done.exit_code == (1 if fails else 0), done.output
        return str(done.output if fails else done.stdout)

    return run


def test_one_is_shown_whole(db: Connection, relay: Relay) -> None:
    shown: dict[str, Any] = json.loads(relay("show", "sums", "--json"))
    assert (shown["name"], shown["status"], shown["effective_mode"]) == ("public.sums", "ACTIVE", "DIFFERENTIAL")
    assert "sum(amount)" in shown["query"]
    [source] = shown["sources"]
    assert (source["name"], source["pending_rows"]) == ("public.sales", 0)
    text = relay("show", "sums")
    assert "effective mode" in text and "public.sales: 0 changes wait" in text
    [node] = shown["nodes"]
    assert (node["relation"], node["kind"], node["reads"]) == ("public.sums", "state", ["public.sales"])
    assert node["table_bytes"] > 0 and node["state_bytes"] > 0
    assert "public.sums: " in text and f"{node['state_bytes']} of state; linear" in " ".join(text.split())
    for verb in ("show", "explain", "history", "pause"):
        assert 'stream table "nothing" does not exist' in relay(verb, "nothing", fails=True)


def test_it_is_explained_how_it_is_refreshed_and_why(db: Connection, relay: Relay) -> None:
    text = relay("explain", "sums")
    assert "AUTO, refreshed DIFFERENTIAL" in text and "linear" in text and "keep its mode (confidence: low)" in text
    found = json.loads(relay("explain", "sums", "--json"))
    assert found["strategies"] == [{"changed": ["public.sales"], "strategy": "linear", "reason": None}]
    assert found["used"] == {"full": 1, "linear": 1}
    create(db, "now_and_then", "select now() as at")
    assert "refreshed FULL: " in relay("explain", "now_and_then")


def test_its_refreshes_are_listed_newest_first(db: Connection, relay: Relay) -> None:
    first, second = json.loads(relay("history", "sums", "--json"))
    assert (first["action"], first["strategy"], first["rows_inserted"]) == ("DIFFERENTIAL", "linear", 1)
    assert (second["action"], second["strategy"]) == ("FULL", "full")
    assert len(json.loads(relay("history", "sums", "--limit", "1", "--json"))) == 1
    assert "DIFFERENTIAL" in relay("history", "sums")


def test_one_is_paused_and_resumed(db: Connection, relay: Relay) -> None:
    status = "select status, is_populated from tide.stream_tables()"
    assert relay("pause", "sums") == "paused stream table sums\n"
    assert db.execute(status).fetchall() == [("SUSPENDED", True)]
    relay("resume", "sums")
    assert db.execute(status).fetchall() == [("ACTIVE", True)]


def test_snapshots_are_taken_listed_restored_and_dropped(db: Connection, relay: Relay) -> None:
    assert json.loads(relay("snapshot", "list", "--json")) == []
    assert "took snapshot public.monday" in relay("snapshot", "take", "sums", "monday")
    [one] = json.loads(relay("snapshot", "list", "sums", "--json"))
    assert (one["snapshot_table"], one["stream_table"], one["row_count"]) == ("public.monday", "public.sums", 1)
    assert "public.monday" in relay("snapshot", "list")
    db.execute("delete from sales")
    refresh(db, "sums")
    assert "the next refresh goes on from there" in relay("snapshot", "restore", "sums", "public.monday")
    assert db.execute("table sums").fetchall() == [("north", 5)]
    assert set(json.loads(relay("snapshot", "restore", "sums", "monday", "--json"))) == {"computed_because"}
    assert json.loads(relay("snapshot", "take", "sums", "tuesday", "--json")) == {"snapshot_table": "public.tuesday"}
    relay("snapshot", "drop", "tuesday", "--yes")
    assert "give --yes" in relay("snapshot", "drop", "monday", fails=True)
    relay("snapshot", "drop", "monday", "--yes")
    assert json.loads(relay("snapshot", "list", "--json")) == []


def test_the_doctor_tells_what_is_not_refreshed_and_what_makes_it_dear(
    database: Database, db: Connection, relay: Relay
) -> None:
    def findings() -> list[tuple[str, str]]:
        done = json.loads(invoke("doctor", "--json", url=database.url).stdout)
        return [(one["result"], one["found"]) for one in done if one["check"] == "stream tables"]

    assert findings() == [("ok", "1 stream table, no refresh failed")]
    relay("pause", "sums")
    assert findings() == [("warning", "public.sums: paused, so not refreshed")]
    relay("resume", "sums")
    db.execute("alter table sales disable trigger user")
    [(result, found)] = findings()
    assert result == "warning" and "public.sums: a trigger that captures changes is missing or disabled" in found
