"""Sessions of ours read and write values in one way, whatever the role and the database have set."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay import inbox
from relay.backends.postgresql import session as of_backends
from relay.database.connection import connect, make_worker_pool
from relay.database.migrate import migrate, script
from relay.errors import ConfigError, MigrationError
from relay.jobs.pgrelay import SyncPgRelayClient
from relay.settings import Settings
from relay.web.admin.sessions import Sessions
from tests.cli.command import invoke
from tests.e2e.drains import draining
from tests.services.pgbouncer import PgBouncer
from tests.services.postgres import Database, PostgresServer
from tests.web.api import SECRET, running_api
from workers.jobs.store import Store

FOREIGN = {
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "extra_float_digits": "-10",
    "array_nulls": "off",
    "timezone": "Asia/Tokyo",
}
OURS = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "array_nulls": "on",
}
SHOW = "select current_setting(n) from unnest(%s::text[]) n"
TEXT = "\N{EURO SIGN} \N{SNOWMAN} \N{HIRAGANA LETTER A} \\ \\n"


@pytest.fixture
def foreign(database: Database) -> Database:
    with database.connect() as owner:
        for name, value in FOREIGN.items():
            owner.execute(f"alter database {database.name} set {name} = '{value}'")
    return database


def of_programs(database: Database) -> list[Any]:
    with connect(Settings(postgres_url=database.url), "test") as session:
        return session.execute(SHOW, [list(OURS)]).fetchall()


def of_workers(database: Database) -> list[Any]:
    pool = make_worker_pool(Settings(postgres_url=database.url), threads=1)
    try:
        with pool.connection() as session:
            return session.execute(SHOW, [list(OURS)]).fetchall()
    finally:
        pool.close()


def of_the_admin_api(database: Database) -> list[Any]:
    sessions = Sessions(Settings(postgres_url=database.url))
    try:
        with sessions.session() as session:
            return session.execute(SHOW, [list(OURS)]).fetchall()
    finally:
        sessions.close()


def of_backends_(database: Database) -> list[Any]:
    with of_backends.connect(database.url, "here", 5000, "test") as session:
        return session.execute(SHOW, [list(OURS)]).fetchall()


def of_engines(database: Database) -> list[Any]:
    async def shown() -> list[Any]:
        store = Store(Settings(postgres_url=database.url), lambda _: None)
        try:
            async with store._session() as session:
                return await (await session.execute(SHOW, [list(OURS)])).fetchall()
        finally:
            await store.close()

    return asyncio.run(shown())


def of_inboxes(database: Database) -> list[Any]:
    seen: list[Any] = []
    put(database, "a")
    inbox.run(database.url, "letters", lambda c, _: seen.extend(c.execute(SHOW, [list(OURS)])), until_empty=True)
    return seen


def of_inboxes_of_coroutines(database: Database) -> list[Any]:
    seen: list[Any] = []

    async def handle(connection: inbox.AsyncConnection, _: inbox.InboxMessage) -> None:
        seen.extend(await (await connection.execute(SHOW, [list(OURS)])).fetchall())

    put(database, "a")
    asyncio.run(inbox.run_async(database.url, "letters", handle, until_empty=True))
    return seen


def put(database: Database, *event_ids: str) -> None:
    with database.connect(client_encoding="UTF8") as owner:
        owner.execute("select tide.inbox_create('letters') where not exists (select from tide.inbox)")
        for event_id in event_ids:
            owner.execute("insert into tide.letters (event_id, payload) values (%s, %s)", [event_id, json.dumps(TEXT)])


@pytest.mark.parametrize(
    "shown",
    [of_programs, of_workers, of_the_admin_api, of_backends_, of_engines, of_inboxes, of_inboxes_of_coroutines],
)
def test_each_session_of_ours_sets_what_it_relies_on(
    foreign: Database, shown: Callable[[Database], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATESTYLE", "SQL")
    assert dict(zip(OURS, [row[0] for row in shown(foreign)], strict=True)) == OURS


def test_any_character_passes_in_both_directions(foreign: Database, tmp_path: Path) -> None:
    with draining(foreign) as drains, foreign.connect(client_encoding="UTF8") as db:
        drains.publish_to(sink_type="file", path=str(tmp_path / "out.jsonl"))
        db.execute("select tide.outbox_publish('orders', %s::jsonb, key => %s)", [json.dumps(TEXT), TEXT])
        drains.until_idle("p")
        [line] = (tmp_path / "out.jsonl").read_text().splitlines()
        assert json.loads(line)["payload"] == TEXT

        source = drains.receive_into("arrived", "r")
        source.send(json.dumps(TEXT).encode(), key=TEXT, headers={"t": TEXT})
        drains.until("r", lambda: db.execute("select count(*) from tide.arrived").fetchone() == (1,))
        assert db.execute("select payload, headers ->> 't' from tide.arrived").fetchall() == [(TEXT, TEXT)]


def test_commands_print_times_and_characters(foreign: Database, tmp_path: Path) -> None:
    with draining(foreign) as drains, foreign.connect(client_encoding="UTF8") as db:
        drains.publish_to(sink_type="file", path=str(tmp_path / "out.jsonl"))
        drains.publish()
        drains.until_idle("p")
        db.execute(
            """insert into tide.dead_letter (pipeline, outbox, message_id, key, payload, code, reason)
               values ('p', 'orders', 1, %s, to_jsonb(%s::text), 'x', %s)""",
            [TEXT] * 3,
        )
        for arguments in (
            ["status"], ["status", "--json"], ["dead-letter", "list"], ["dead-letter", "show", "1"], ["history"],
            ["jobs", "queue", "list"], ["pipeline", "list"], ["doctor"],
        ):  # fmt: skip
            done = invoke(*arguments, url=foreign.url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
            assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
            if arguments[0] != "doctor":
                assert done.exit_code == 0, (arguments, done.output)
        assert "\N{SNOWMAN}" in invoke("dead-letter", "list", url=foreign.url).output


def test_the_sdk_handles_what_the_application_reads(foreign: Database) -> None:
    put(foreign, "a", TEXT)
    seen = []
    inbox.run(foreign.url, "letters", lambda _, message: seen.append(message), until_empty=True)
    assert [(message.event_id, message.payload) for message in seen] == [("a", TEXT), (TEXT, TEXT)]
    assert all(message.claimed_until > message.received_at for message in seen)
    SyncPgRelayClient(foreign.url)._make_queue("mail")
    with foreign.connect() as db:
        assert db.execute("select name from tide.job_queue").fetchall() == [("mail",)]


def test_a_connection_of_the_application_is_used_as_it_is(foreign: Database) -> None:
    put(foreign, "a")
    with foreign.connect() as own:
        with pytest.raises(ConfigError, match="client_encoding='UTF8'"):
            inbox.run(own, "letters", lambda *_: None, until_empty=True)
        own.execute("update tide.letters set payload = '1', claimed_by = null, available_at = null")
        assert inbox.run(own, "letters", lambda *_: None, until_empty=True) == 1
        assert own.execute(SHOW, [list(FOREIGN)]).fetchall() == [
            ("LATIN1",), ("German, DMY",), *((value,) for value in list(FOREIGN.values())[2:]),
        ]  # fmt: skip


def test_functions_mean_the_same_in_every_session(foreign: Database) -> None:
    """Their texts are parsed in the session that calls them."""
    with foreign.connect(client_encoding="UTF8") as own:
        own.execute("select tide.setting_set('max_retention_hours', '12')")
        own.execute("select tide.job_queue_create('mail'); select tide.inbox_create('letters')")
        own.execute("select tide.job_schedule_set('daily', 'mail', '0 6 * * *', 'digest')")
        own.execute("create table public.shelf (id int primary key); select tide.table_outbox_enable('public.shelf')")
        own.execute("insert into public.shelf values (1)")
        assert own.execute("select count(*) from tide.outbox_partitions(1) where first_id is not null").fetchone() == (
            2,
        )
        assert own.execute("select count(*) from tide.message").fetchone() == (1,)


def test_a_webhook_is_stored_whatever_it_holds(foreign: Database, tmp_path: Path) -> None:
    with foreign.connect() as owner:
        owner.execute("select tide.inbox_create('hook')")
        config = {"source_type": "webhook", "path": "hook", "signing_secret": SECRET, "wire_format": "raw"}
        owner.execute("select tide.relay_set_inbox('hook', 'hook', %s)", [json.dumps(config)])
    with running_api(foreign, tmp_path) as api:
        api.wait_for("hook")
        assert api.send("hook", "one", json.dumps({"t": TEXT}).encode()).status < 300
    with foreign.connect(client_encoding="UTF8") as db:
        assert db.execute("select payload from tide.hook").fetchall() == [({"t": TEXT},)]


def test_a_pool_that_shares_sessions_keeps_what_values_need(foreign: Database, own_dirs: Callable[[], Path]) -> None:
    """PgBouncer sets these for whichever session it gives: none of another client's is changed."""
    settings = ["pool_mode = transaction", "default_pool_size = 1"]
    with (
        PgBouncer(own_dirs(), foreign.fleet_url(), settings) as pooled,
        psycopg.connect(pooled.url, autocommit=True, prepare_threshold=None) as other,
        connect(Settings(postgres_url=pooled.url), "test") as ours,
    ):
        for _ in range(3):
            assert other.execute("select current_setting('datestyle')").fetchone() == ("German, DMY",)
            [(moment, text)] = ours.execute("select now(), %s::text", [TEXT]).fetchall()
            assert moment.year > 2000 and text == TEXT


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def other_encoding(pg: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"other_{request.param.lower()}"
    with psycopg.connect(pg.admin_url, autocommit=True) as admin:
        admin.execute(
            f"create database {name} owner tide_owner encoding '{request.param}' template template0"
            " lc_collate 'C' lc_ctype 'C'"
        )
        yield pg.process.url_of(name, "tide_owner", "owner")
        admin.execute(f"drop database {name} with (force)")


def test_a_database_that_is_not_utf8_is_refused_and_examined(other_encoding: str) -> None:
    done = invoke("migrate", url=other_encoding)
    assert done.exit_code == 1 and "encoding 'UTF8' template template0" in done.output, done.output
    with pytest.raises(MigrationError):
        migrate(other_encoding)
    for schema in (False, True):
        if schema:
            with psycopg.connect(other_encoding, autocommit=True) as owner:
                owner.execute(script().encode())
                owner.execute("select tide.outbox_create('o')")
                owner.execute("select tide.relay_set_outbox('p', 'o', %s)", ['{"sink_type": "stdout"}'])
                owner.execute(b"update tide.drain set error = 'f\xfcr', error_code = 'x'")
        done = invoke("doctor", "--json", url=other_encoding, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
        found = {finding["check"]: finding for finding in json.loads(done.stdout)}
        assert found["encoding"]["result"] == "failed", done.output
