"""PostgreSQL takes no writes for a while: a failover to a standby, a full disk. Everything waits, and goes on."""

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from relay import inbox
from relay.database.connection import database_errors, make_worker_pool, pooled
from relay.errors import NotConnected
from relay.local.server_process import free_port
from relay.local.servers import EmbeddedRedis
from relay.settings import Settings
from tests.cli.command import invoke
from tests.fleets.jobs import jobs_in
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import running_fleet
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until
from tests.web.api import make_hook, running_api

PATIENCE_SECONDS = 60
TOKEN = "t" * 32
COMMANDS = (
    ["publish", "o"],
    ["pipeline", "disable", "p"],
    ["replay", "p", "1", "1"],
    ["jobs", "enqueue", "mail", "send_receipt", '{"order_id": 1}'],
    ["restored"],
)


def set_read_only(server: PostgresServer, value: str) -> None:
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(f"alter system set default_transaction_read_only = {value}")
        admin.execute("select pg_reload_conf()")


def is_read_only(database: Database) -> bool:
    with database.connect() as session:
        return session.execute("show transaction_read_only").fetchone() == ("on",)


def has_settled(database: Database) -> bool:
    with database.connect() as session:
        found = session.execute(
            "select offset_id > 0 from tide.pipeline p join tide.consumer_group g using (group_id) where p.name = 'p'"
        )
        return found.fetchone() == (True,)


def ended_jobs(database: Database) -> int:
    with database.connect() as session:
        [(count,)] = session.execute("select count(*) from tide.job_attempt where outcome = 's'").fetchall()
        return int(count)


def enqueued_by_admin_api(port: int) -> tuple[int, str | None]:
    """Its status, and when to come again."""
    job = {"queue_name": "mail", "kind": "handler", "name": "send_receipt", "payload": {"order_id": 1}}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        connection.request("POST", "/v1/jobs", json.dumps(job), headers)
        response = connection.getresponse()
        return response.status, response.getheader("retry-after")


@pytest.mark.timeout(300)
def test_all_programs_wait_say_so_and_go_on(
    own_postgres: Callable[..., PostgresServer], redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    server = own_postgres()
    database = server.create_database()
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    pipelines.make("p", "o")
    hook = make_hook(database, "shop")
    enqueue = "select tide.job_enqueue('mail', 'send_receipt', '{\"order_id\": 1}')"
    with database.connect() as db:
        db.execute("select tide.job_queue_create('mail')")
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        scheduler, workers = fleet.scheduler(), fleet.workers(**jobs_in(tmp_path))
        fleet.wait_ready()
        (tmp_path / "api").mkdir()
        admin_port = free_port()
        admin = {"RELAY_ADMIN_ADDR": f"127.0.0.1:{admin_port}", "RELAY_API_AUTH_TOKENS": TOKEN}
        with running_api(database, tmp_path / "api", **admin) as api:
            api.wait_for(hook)
            assert api.send(hook, "a").status == 200
            ids = pipelines.publish("o", 500)
            with database.connect() as db:
                for _ in range(50):
                    db.execute(enqueue)
            wait_until(lambda: has_settled(database), PATIENCE_SECONDS, "there is something to replay")
            set_read_only(server, "on")
            wait_until(lambda: is_read_only(database), PATIENCE_SECONDS, "the server is read-only")
            late = fleet.scheduler("late")
            for program in (scheduler, workers, late):
                wait_until(lambda: "read-only" in program.get("/ready")[1], PATIENCE_SECONDS, program.name)  # noqa: B023
                assert program.get("/ready")[0] == 503 and program.get("/health")[0] == 200
            answer = api.send(hook, "b")
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
            assert "read-only" in str(api.get("/health", api.metrics_port).body)
            assert enqueued_by_admin_api(admin_port) == (503, "5")
            for arguments in COMMANDS:
                done = invoke(*arguments, url=database.url, stdin="1\n")
                assert done.exit_code == 1 and "PostgreSQL is read-only" in done.output, (arguments, done.output)
                assert len(done.stderr.splitlines()) == 1, done.stderr
            found = json.loads(invoke("doctor", "--json", url=database.url, RELAY_BROKER_URL=redis_server.url).stdout)
            [primary] = [finding for finding in found if finding["check"] == "primary"]
            assert primary["result"] == "failed" and "read-only" in primary["found"]

            set_read_only(server, "off")
            wait_until(lambda: not is_read_only(database), PATIENCE_SECONDS, "it can be written")
            ids += pipelines.publish("o", 5)
            with database.connect() as db:
                db.execute(enqueue)
            pipelines.wait_delivered("p", ids, PATIENCE_SECONDS)
            wait_until(lambda: ended_jobs(database) >= 51, PATIENCE_SECONDS, "the jobs have ended")
            wait_until(lambda: api.send(hook, "b").status == 200, PATIENCE_SECONDS, "webhooks are stored")
            assert enqueued_by_admin_api(admin_port) == (201, None)
            fleet.wait_ready()
            assert "Traceback" not in api.log.read_text()
        for program in (scheduler, workers, late):
            assert program.is_running and not program.says("Traceback") and not program.says("bug in"), program.text()
        assert pipelines.dead_letters("p") == []


@pytest.mark.timeout(300)
def test_a_real_standby_is_waited_for_until_it_is_promoted(
    own_postgres: Callable[..., PostgresServer], redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    server = own_postgres()
    database = server.create_database()
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    pipelines.make("p", "o")
    url = database.fleet_url()
    server.stop()
    (server.process.pgdata / "standby.signal").touch()
    server.start()
    with running_fleet(url, redis_server.url, tmp_path / "fleet") as fleet:
        scheduler, workers = fleet.scheduler(), fleet.workers()
        for program in (scheduler, workers):
            wait_until(lambda: "read-only" in program.get("/ready")[1], PATIENCE_SECONDS, program.name)  # noqa: B023
        found = json.loads(invoke("doctor", "--json", url=database.url, RELAY_BROKER_URL=redis_server.url).stdout)
        assert "standby" in next(finding["found"] for finding in found if finding["check"] == "primary")
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            assert admin.execute("select pg_promote()").fetchone() == (True,)
        pipelines.wait_delivered("p", pipelines.publish("o", 5), PATIENCE_SECONDS)
        fleet.wait_ready()
        for program in (scheduler, workers):
            assert not program.says("Traceback") and not program.says("bug in"), program.text()


def test_a_session_that_could_only_read_is_not_kept(database: Database) -> None:
    """After a failover the old primary may still answer, and the address lead to the new one."""
    pool = make_worker_pool(Settings(postgres_url=database.url), threads=1)
    try:

        def write() -> None:
            with database_errors(), pooled(pool) as session:
                pids.append(session.info.backend_pid)
                session.execute("set default_transaction_read_only = on")
                session.execute("create table public.t ()")

        pids: list[int] = []
        for _ in range(2):
            with pytest.raises(NotConnected, match="read-only") as caught:
                write()
            assert caught.value.code == "read_only"
        assert pids[0] != pids[1]
    finally:
        pool.close()


def test_an_inbox_waits_and_no_message_fails(own_postgres: Callable[..., PostgresServer]) -> None:
    server = own_postgres()
    database = server.create_database()
    seen: list[int] = []
    stop = threading.Event()
    fill = "insert into tide.letters (event_id) select n::text from generate_series({}, {}) n"
    with database.connect() as db:
        db.execute("select tide.inbox_create('letters'); create table public.t (n int)")
        db.execute(fill.format(1, 1000))

    def handle(connection: inbox.Connection, message: inbox.InboxMessage) -> None:
        connection.execute("insert into public.t values (1)")
        seen.append(message.retry_count)

    def run() -> int:
        return inbox.run(database.url, "letters", handle, stop=stop, visibility_seconds=1, poll_seconds=0.1)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run)
        try:
            wait_until(lambda: seen, PATIENCE_SECONDS, "messages are handled")
            set_read_only(server, "on")
            wait_until(lambda: is_read_only(database), PATIENCE_SECONDS, "the server is read-only")
            set_read_only(server, "off")
            wait_until(lambda: not is_read_only(database), PATIENCE_SECONDS, "it can be written")
            with database.connect() as db:
                db.execute(fill.format(1001, 1010))
                undone = "select count(*) from tide.letters where processed_at is null"
                wait_until(lambda: db.execute(undone).fetchone() == (0,), PATIENCE_SECONDS, "all are handled")
                assert db.execute("select count(*) from tide.letters where retry_count > 0").fetchone() == (0,)
                assert db.execute("select count(*) from public.t").fetchone() == (1010,)
        finally:
            stop.set()
        assert running.result(PATIENCE_SECONDS) <= 1010
