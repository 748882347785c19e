"""Reading notifications of sessions that also execute statements: nothing is kept, decoded or believed."""

import itertools
import select
import socket

import psycopg
import pytest
from psycopg import sql

from relay.database.notifications import Listener
from relay.log_limit import LogLimit
from tests.waiting import wait_until


@pytest.fixture
def heard():
    return []


@pytest.fixture
def session(database, heard):
    with database.connect() as connection:
        connection.execute("listen a; listen b")
        yield connection, Listener(connection, lambda *notification: heard.append(notification))


def notify(database, *texts, channel="a"):
    with database.connect() as sender:
        for text in texts:
            sender.execute("select pg_notify(%s, %s)", [channel, text])


def test_what_can_be_no_name_is_handed_over_as_nothing(session, database, heard, caplog):
    _, listener = session
    longest = "x" * 100
    notify(database, "orders", "", "Orders.v2-1_", longest, "x" + longest, "órders", "a b", "-a", "orders\n", "[1]")
    notify(database, "orders", channel="b")
    wait_until(lambda: listener.wait(1.0) or len(heard) == 11)
    names = ["orders", "", "Orders.v2-1_", longest] + 6 * [None]
    assert heard == [("a", name) for name in names] + [("b", "orders")]
    assert len(caplog.messages) == 1 and "pid" in caplog.messages[0], "and one line says so"


def test_notifications_in_the_midst_of_a_statement_are_handed_over_and_not_kept(session, database, heard):
    connection, listener = session
    pieces = []
    take = listener._take

    def measured():
        take()
        pieces.append(len(heard))

    listener._take = measured
    with database.connect() as sender:
        sender.execute("select count(pg_notify('a', i || repeat('x', 7900))) from generate_series(1, 2000) i")
    assert connection.execute("select 1").fetchone() == (1,)
    assert heard == [("a", None)] * 2000
    assert not connection._notifies_backlog
    assert max(later - earlier for earlier, later in itertools.pairwise([0, *pieces, 2000])) < 200


def test_bytes_that_the_encoding_does_not_have_are_no_error(postgres, heard):
    """A database in SQL_ASCII checks none."""
    name = "notifications_ascii"
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        statement = "create database {} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
        admin.execute(sql.SQL(statement).format(sql.Identifier(name)))
    try:
        url = psycopg.conninfo.make_conninfo(postgres.admin_url, dbname=name)
        with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as sender:
            connection.execute("listen a")
            listener = Listener(connection, lambda *notification: heard.append(notification))
            sender.execute(rb"""select pg_notify('a', e'\xff\xc3'), pg_notify('a', 'orders')""")
            connection.execute("select 1")
            wait_until(lambda: listener.wait(1.0) or len(heard) == 2)
            assert heard == [("a", None), ("a", "orders")]
    finally:
        with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_wait_ends_with_another_file_and_the_session_is_as_before_when_the_ear_is_closed(session, database, heard):
    connection, listener = session
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not listener.wait(0.0, ours)
        theirs.send(b"x")
        assert listener.wait(30.0, ours)
    listener.close()
    notify(database, "orders")
    assert select.select([connection.fileno()], [], [], 10)[0]
    assert [n.payload for n in connection.notifies(timeout=5, stop_after=1)] == ["orders"]
    assert not heard


def test_a_line_that_others_can_cause_is_written_now_and_then_with_the_count():
    limit = LogLimit(3600)
    assert [limit.count() for _ in range(1000)] == [1] + [0] * 999
    limit._due_at = 0.0
    assert limit.count() == 1000
