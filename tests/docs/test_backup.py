"""docs/operations/backup.md: a dump and a restore with a running fleet, its commands and statements as printed."""

import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from relay.local.servers import EmbeddedRedis, _postgres_programs
from tests.cli.command import environment, invoke
from tests.docs.pages import blocks, text_of
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import running_fleet
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until

PAGE = "operations/backup"
PATIENCE_SECONDS = 90


def shell(script: str, folder: Path, **variables: str) -> None:
    """With the programs of the server, as an administrator has them."""
    path = f"{_postgres_programs(18)}:{environment()['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=environment(PATH=path, **variables), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def printed(kind: str) -> list[str]:
    """What stands indented in the list of steps: step 5 is a command, step 6 is SQL."""
    found = re.findall(rf"^    ```{kind}\n(.*?)^    ```$", text_of(PAGE), re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE} has no block of {kind} among its steps"
    return ["\n".join(line.strip() for line in block.splitlines()) for block in found]


def skip_ids(url: str) -> None:
    [command] = printed("sh")
    done = invoke(*command.split()[1:], url=url)
    assert done.exit_code == 0, done.output


@pytest.fixture
def dumped() -> str:
    """The dump's script: two commands, of which the second restores."""
    [script] = blocks(PAGE, "sh")
    return script


def test_a_restore_delivers_again_what_it_forgot_and_gives_no_id_twice(
    database: Database, pg: PostgresServer, redis_server: EmbeddedRedis, dumped: str, tmp_path: Path
) -> None:
    dump, restore = dumped.splitlines()
    folder = tmp_path / "delivered"
    before = Pipelines(database.url, folder)
    before.make("orders-out", "orders")
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "before") as fleet:
        fleet.scheduler()
        fleet.workers()
        fleet.wait_ready()
        before.wait_delivered("orders-out", before.publish("orders", 10), PATIENCE_SECONDS)
        before.wait_settled(PATIENCE_SECONDS)
        before.run("select tide.relay_disable('orders-out')")
        # A drain that has begun goes on until its next write.
        wait_until(lambda: before.drain("orders-out")["lease_until"] is None, what="the last drain has ended")
        kept = before.publish("orders", 5)
        shell(dump, tmp_path, RELAY_POSTGRES_URL=database.url)
        before.run("select tide.relay_enable('orders-out')")
        forgotten = before.publish("orders", 5)
        before.wait_delivered("orders-out", forgotten, PATIENCE_SECONDS)

    new = pg.create_database(migrated=False)
    try:
        shell(restore, tmp_path, NEW_URL=new.url)
        redis_server.flush()
        skip_ids(new.url)
        with new.connect() as owner:
            for statement in printed("sql"):
                owner.execute(statement)
        after = Pipelines(new.url, folder)
        after.outbox_of["orders-out"] = "orders"
        after.run("select tide.relay_enable('orders-out')")
        with running_fleet(new.fleet_url(), redis_server.url, tmp_path / "after") as fleet:
            fleet.scheduler()
            fleet.workers()
            fleet.wait_ready()
            fresh = after.publish("orders", 5)
            after.wait_delivered("orders-out", fresh, PATIENCE_SECONDS)
            after.wait_settled(PATIENCE_SECONDS)
        assert not set(fresh) & {*kept, *forgotten}, "no id is given twice"
        assert after.delivered("orders-out").count(kept[0]) == 2, "under the same ids, once more"
        assert after.committed("orders") == [*range(1, 11), *kept, *fresh]
        assert set(after.delivered("orders-out")) == {*range(1, 11), *kept, *forgotten, *fresh}
    finally:
        pg.drop_database(new)


def test_ids_skip_while_publishers_are_open(database: Database) -> None:
    """After the promotion of a standby no publisher has to stop: a mark from before still holds the horizon."""
    with database.connect() as db, psycopg.connect(database.url) as slow:
        db.execute("select tide.outbox_create('orders')")
        slow.execute("select tide.outbox_publish('orders', '\"slow\"')")
        skip_ids(database.url)
        [(fast,)] = db.execute("select tide.outbox_publish('orders', '\"fast\"')").fetchall()
        [(horizon,)] = db.execute("select horizon from tide.outbox o, tide.outbox_horizon(o.outbox_id)").fetchall()
        assert fast > 1_000_000 and horizon < 1
        slow.commit()
        [(horizon,)] = db.execute("select horizon from tide.outbox o, tide.outbox_horizon(o.outbox_id)").fetchall()
        assert horizon == fast
