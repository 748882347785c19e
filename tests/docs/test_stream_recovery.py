"""docs/stream-tables/recovery.md: both runbooks on real servers, their commands and statements as printed."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.cli.command import environment, invoke
from tests.docs.pages import text_of
from tests.docs.stream_pages import BLOCK
from tests.fleets.processes import running_fleet
from tests.services.postgres import TEST_SETTINGS, Database, PostgresServer
from tests.sql.streams.streams import assert_equal
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
STOPS = """
    create table stops (stop_id int primary key, station text not null, minutes int not null);
    insert into stops values (1, 'harbour', 5), (2, 'museum', 70), (3, 'harbour', 90);
"""
TOTALS = """
    select tide.create_stream_table('station_totals',
        'select station, sum(minutes) as minutes from stops group by station');
"""
LONG = "select tide.create_stream_table('long_rides', 'select stop_id, station from stops where minutes > 60')"


def steps(heading: str) -> list[str]:
    """The blocks of one runbook."""
    [section] = re.findall(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", text_of("stream-tables/recovery"), re.DOTALL | re.MULTILINE
    )
    return [text for _, text in BLOCK.findall(section)]


def shell(script: str, clients: Path, **variables: str) -> None:
    known = environment(PATH=f"{clients}:{environment()['PATH']}", **variables)
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def relay(block: str, url: str, **urls: str) -> list[str]:
    """What each command of a block prints."""
    printed = []
    for name, value in urls.items():
        block = block.replace(f'"${name}"', value)
    for line in block.splitlines():
        done = invoke(*shlex.split(line)[1:], url=url)
        assert done.exit_code == 0, (line, done.output)
        printed.append(done.stdout)
    return printed


@pytest.fixture
def replica(pg: PostgresServer) -> Iterator[Database]:
    made = pg.create_database()
    yield made
    pg.drop_database(made)


def test_a_replica_is_bootstrapped(
    database: Database, replica: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    take, carry, restore, finish, done = steps("Bootstrap a replica")
    urls = {"PRIMARY": database.url, "REPLICA": replica.url}
    with database.connect() as db, replica.connect() as other:
        db.execute(STOPS + TOTALS)
        other.execute(STOPS.partition("insert")[0])
        with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "primary") as fleet:
            fleet.scheduler()
            fleet.workers()
            db.execute("select tide.wait_for_stream_table('station_totals')")
        relay(take, database.url, **urls)
        shell(carry, database.server.clients, **urls)
        [told] = relay(restore, replica.url, **urls)
        assert "the next refresh computes its query: the snapshot is of another database" in told
        rows = "select * from station_totals order by station"
        assert other.execute(rows).fetchall() == [("harbour", 95), ("museum", 70)], "readers have the rows at once"
        with running_fleet(replica.fleet_url(), redis_server.url, tmp_path / "replica") as fleet:
            fleet.scheduler()
            fleet.workers()
            relay(finish, replica.url, **urls)
        assert other.execute(done).fetchall() == [(True,)]
        assert_equal(other, "station_totals")
        written = "select rows_inserted + rows_updated + rows_deleted from tide.refresh_history('station_totals')"
        assert other.execute(written).fetchall() == [(0,)], "what was restored was right, so nothing was written"


def test_a_database_goes_back_to_a_moment(
    own_postgres: Callable[..., PostgresServer],
    own_dirs: Callable[[], Path],
    redis_server: EmbeddedRedis,
    tmp_path: Path,
) -> None:
    snapshots, recovery, restored, align, finish, done = steps("Restore to a point in time")
    archive, folder = own_dirs(), own_dirs()
    for made in (archive, folder):
        made.mkdir(mode=0o755)
    archive.chmod(0o777)
    server = own_postgres(settings={"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"})
    database = server.create_database()
    with database.connect() as db, database.admin() as admin:
        with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "before") as fleet:
            fleet.scheduler()
            fleet.workers()
            db.execute(STOPS + TOTALS + LONG)
            for name in ("station_totals", "long_rides"):
                db.execute("select tide.wait_for_stream_table(%s)", [name])
            backup(server, folder)
            db.execute(snapshots)
            db.execute("insert into stops values (4, 'museum', 80)")
            db.execute("select tide.wait_for_stream_table('long_rides')")
            [(moment,)] = admin.execute("select clock_timestamp()::text").fetchall()
            db.execute("delete from stops")
            db.execute("select tide.wait_for_stream_table('long_rides')")
            assert db.execute("table long_rides").fetchall() == []
        admin.execute("select pg_switch_wal()")
    server.stop()

    settings = recovery.replace("/backup/wal", str(archive)).replace("2026-03-01 12:00:00+00", moment)
    with (folder / "pgdata" / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(settings)
    (folder / "pgdata" / "recovery.signal").touch()
    copy = PostgresServer(EmbeddedPostgres(folder, server.version, TEST_SETTINGS))
    try:
        own_by(server, folder)
        copy.start()
        then = Database(copy, database.name)
        wait_for_promotion(then)
        with then.connect() as db:
            relay(restored, then.url)
            told = dict(db.execute(align).fetchall())
            assert told == {"public.long_rides": None, "public.station_totals": None}
            redis_server.flush()
            with running_fleet(then.fleet_url(), redis_server.url, tmp_path / "after") as fleet:
                fleet.scheduler()
                fleet.workers()
                relay(finish, then.url)
            assert db.execute(done).fetchall() == [(True,)]
            for name in ("station_totals", "long_rides"):
                assert_equal(db, name)
            assert db.execute("select * from long_rides order by 1").fetchall() == [
                (2, "museum"),
                (3, "harbour"),
                (4, "museum"),
            ]
            last = "select action, rows_inserted + rows_updated from tide.refresh_history(%s, 1)"
            for name in ("long_rides", "station_totals"):
                assert db.execute(last, [name]).fetchall() == [("DIFFERENTIAL", 1)], "it went on from its snapshot"
    finally:
        copy.close()


def backup(server: PostgresServer, folder: Path) -> None:
    """A physical one, in a folder in which a server can be started."""
    program = server.clients / "pg_basebackup"
    command = [str(program), "--checkpoint=fast", "-D", str(folder / "pgdata"), "-d", server.admin_url]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=60)
    shutil.copy(server.process.data_dir / "password", folder)


def own_by(server: PostgresServer, folder: Path) -> None:
    """Files belong to the account that runs servers."""
    account = (server.process.pgdata).stat()
    subprocess.run(["chown", "-R", f"{account.st_uid}:{account.st_gid}", folder / "pgdata"], check=True)
    shutil.copystat(server.process.data_dir / "password", folder / "password")


def wait_for_promotion(database: Database) -> None:
    def promoted() -> bool:
        with database.connect() as db:
            return db.execute("select pg_is_in_recovery()").fetchall() == [(False,)]

    wait_until(promoted, 60, "the server has replayed everything, and is promoted")
