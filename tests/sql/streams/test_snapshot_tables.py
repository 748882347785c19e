"""Which tables are snapshots, and who may take, list, restore and drop them."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.sql.security.logins import logins
from tests.sql.streams.snapshots import SOURCES, SUMS, restore, take
from tests.sql.streams.streams import Connection, assert_equal, create, refresh


@pytest.fixture
def connection(database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(SOURCES)
        create(connection, "sums", SUMS)
        refresh(connection, "sums")
        yield connection


def test_snapshots_are_listed_and_dropped(connection):
    create(connection, '"Odd Name"', "select 1 as one")
    refresh(connection, "Odd Name")
    take(connection, "pgtrickle.first")
    take(connection, '"Odd copy"', "Odd Name")
    connection.execute('comment on table orders is \'{"tide_snapshot": 5, "no json\'')
    listed = "select snapshot_table, stream_table, row_count, size_bytes > 0 from {}.list_snapshots({})"
    assert connection.execute(listed.format("pgtrickle", "")).fetchall() == [
        ("pgtrickle.first", "public.sums", 3, True),
        ('public."Odd copy"', 'public."Odd Name"', 1, True),
    ]
    assert len(connection.execute(listed.format("tide", "'sums'")).fetchall()) == 1
    connection.execute("select pgtrickle.drop_snapshot('pgtrickle.first'); select tide.drop_snapshot('Odd copy')")
    assert connection.execute(listed.format("tide", "")).fetchall() == []
    assert connection.execute("select count(*) from tide.stream_snapshot").fetchone() == (0,)


@pytest.mark.parametrize("source", ["orders", "public.orders", "nowhere", None])
def test_what_is_no_snapshot_is_neither_restored_nor_dropped(connection, source):
    for call in ("tide.restore_from_snapshot('sums', %s)", "tide.drop_snapshot(%s)"):
        with pytest.raises(psycopg.errors.UndefinedObject, match="not one snapshot"):
            connection.execute(f"select {call}", [source])
    assert connection.execute("select count(*) from orders").fetchone() == (4,)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("alter table before enable row level security", psycopg.errors.WrongObjectType),
        ("alter table before drop column amount", psycopg.errors.DatatypeMismatch),
        ("alter table before alter column amount type float8", psycopg.errors.DatatypeMismatch),
        ("alter table before add column more int", psycopg.errors.DatatypeMismatch),
        ("alter table before drop column orders, add column orders bigint generated always as (1) stored",
         psycopg.errors.WrongObjectType),
    ],
)  # fmt: skip
def test_a_table_that_is_not_like_the_stream_table_is_refused(connection, statement, error):
    take(connection)
    connection.execute(statement)
    with pytest.raises(error):
        restore(connection)
    assert_equal(connection, "sums")


def test_an_empty_one_is_not_taken(connection):
    create(connection, "later", SUMS)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not been filled"):
        take(connection, name="later")
    for target in ("a.b.c", None):
        with pytest.raises(psycopg.errors.InvalidName):
            take(connection, target)


def test_who_may_take_list_and_restore_them(connection, database):
    take(connection)
    with logins(database) as login:
        for grant, may in (("grant_reader", False), ("grant_operator", False), ("grant_admin", True)):
            with psycopg.connect(login(grant)[1], autocommit=True) as other:
                assert len(other.execute("select * from tide.list_snapshots()").fetchall()) == 1
                if may:
                    take(other, "public.another")
                    restore(other, "public.another")
                    other.execute("select tide.drop_snapshot('public.another')")
                else:
                    for call in (
                        "snapshot_stream_table('sums', 'public.x')",
                        "restore_from_snapshot('sums', 'before')",
                        "drop_snapshot('before')",
                    ):
                        with pytest.raises(psycopg.errors.InsufficientPrivilege):
                            other.execute(f"select tide.{call}")
