"""A snapshot goes to other databases and other times, and is restored there: right at the end in each."""

import os
import subprocess
from urllib.parse import urlsplit

import pytest

from relay.local.servers import EmbeddedPostgres
from tests.services.postgres import TEST_SETTINGS, Database, PostgresServer
from tests.sql.streams.snapshots import CHANGED, COMPUTED, ELSEWHERE, SOURCES, SUMS, change, restore, same, take
from tests.sql.streams.streams import assert_equal, behind, create, refresh


@pytest.fixture
def replica(pg):
    """Another database with the same tables and the same stream table, empty still."""
    database = pg.create_database()
    with database.connect() as connection:
        connection.execute(SOURCES)
        create(connection, "sums", SUMS)
    yield database
    pg.drop_database(database)


def carry(source: Database, target: Database, table: str) -> None:
    """By pg_dump of the table alone."""
    dump = client("pg_dump", source, "-t", table)
    client("psql", target, "-X", "-q", "-v", "ON_ERROR_STOP=1", text=dump)


def client(program: str, database: Database, *options: str, text: bytes = b"") -> bytes:
    url = urlsplit(database.admin_url)
    where = ["-h", "127.0.0.1", "-p", str(url.port), "-U", "postgres", database.name]
    return subprocess.run(
        [database.server.clients / program, *options, *where],
        env=os.environ | {"PGPASSWORD": url.password or ""}, input=text, capture_output=True, timeout=60, check=True,
    ).stdout  # fmt: skip


@pytest.mark.each_postgres
def test_a_replica_begins_with_the_dump_of_a_snapshot(database, replica):
    with database.connect() as primary:
        primary.execute(SOURCES)
        create(primary, "sums", SUMS)
        refresh(primary, "sums")
        assert primary.execute(
            "select pgtrickle.snapshot_stream_table('public.sums', 'pgtrickle.sums_replica_init')"
        ).fetchone() == ("pgtrickle.sums_replica_init",)
    carry(database, replica, "pgtrickle.sums_replica_init")
    with replica.connect() as connection:
        listed = "select snapshot_table, stream_table, row_count from pgtrickle.list_snapshots('sums')"
        assert connection.execute(listed).fetchall() == [("pgtrickle.sums_replica_init", "public.sums", 3)]
        restored = "select pgtrickle.restore_from_snapshot('public.sums', 'pgtrickle.sums_replica_init')"
        assert connection.execute(restored).fetchone() == (ELSEWHERE,)
        assert same(connection, "sums", "pgtrickle.sums_replica_init")
        assert behind(connection, "sums") == COMPUTED
        assert refresh(connection, "sums") == ("FULL", 0, 0), "its rows are compared, and none differs"
        change(connection)
        refresh(connection, "sums")
        assert_equal(connection, "sums")
        connection.execute("select pgtrickle.drop_snapshot('pgtrickle.sums_replica_init')")
        assert connection.execute(listed).fetchall() == []


def test_every_stream_table_is_snapshot_before_a_restore_to_that_time(database):
    """The statements that users of earlier systems know, for all at once."""
    with database.connect() as connection:
        connection.execute(SOURCES)
        for name in ("sums", '"Odd Name"', "later"):
            create(connection, name, SUMS)
        refresh(connection, "sums")
        refresh(connection, "Odd Name")
        taken = connection.execute("""
            SELECT pgtrickle.snapshot_stream_table(
                pgt_schema || '.' || pgt_name,
                'pgtrickle.pitr_snapshot_' || pgt_id || '_' || extract(epoch from now())::bigint
            )
            FROM pgtrickle.pgt_stream_tables
            WHERE status = 'ACTIVE'""").fetchall()
        assert len(taken) == 2
        change(connection)
        for name in ("sums", "Odd Name"):
            refresh(connection, name)
        restored = connection.execute("""
            SELECT pgtrickle.restore_from_snapshot(stream_table, snapshot_table) FROM pgtrickle.list_snapshots()""")
        assert restored.fetchall() == [(None,), (None,)]
        for name in ("sums", "Odd Name"):
            refresh(connection, name)
            assert_equal(connection, name)


def test_a_physical_copy_of_an_earlier_time_goes_on_from_its_snapshot(own_postgres, own_dirs):
    server = own_postgres()
    database = server.create_database()
    with database.connect() as primary:
        primary.execute(SOURCES)
        create(primary, "sums", SUMS)
        refresh(primary, "sums")
        take(primary)
        change(primary)
        refresh(primary, "sums")
        change(primary)
    copy = copied(server, own_dirs())
    try:
        then = Database(copy, database.name)
        server.start()
        with database.connect() as primary, then.connect() as connection:
            # The world of the primary goes on: its ids mean other transactions than those of the copy.
            change(primary, 7)
            refresh(primary, "sums")
            take(primary, "public.after")
            connection.execute("insert into orders values (50, 'copy', 1)")
            assert restore(connection) is None
            assert same(connection, "sums", "before")
            assert behind(connection, "sums") == CHANGED
            refresh(connection, "sums")
            assert_equal(connection, "sums")
            # One of a time that the copy never saw: the cluster is the same, and its frontier would be wrong.
            carry(database, then, "public.after")
            assert restore(connection, "public.after") == ELSEWHERE
            assert same(connection, "sums", "after")
            refresh(connection, "sums")
            assert_equal(connection, "sums")
    finally:
        copy.close()


def copied(server: PostgresServer, folder) -> PostgresServer:
    """Stops the server, and starts a copy of its files, which keep their owners."""
    server.stop()
    subprocess.run(["cp", "-a", server.process.data_dir, folder], check=True)
    (folder / "port").unlink()
    copy = PostgresServer(EmbeddedPostgres(folder, server.version, TEST_SETTINGS))
    copy.start()
    return copy
