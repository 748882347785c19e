"""Writes into an inbox do not look at its table again while it is as it was. What changes it has the next one look.

The writer has written before each time, so that what it knows of the table is kept.
"""

import threading

import psycopg
import pytest

from tests.sql.security.inbox_traps import TRAP
from tests.sql.security.logins import logins
from tests.sql.support import refused
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

WRITE = (
    "select tide.inbox_write('events', array[%s::text], array['t'], array['s'], array['a'], array[1], array['1'],"
    " array['{}'], array['x'])"
)
TRIGGER = "create trigger t before insert on tide.events for each row execute function app.fire()"


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute("select tide.inbox_create('events')")
        yield connection


@pytest.fixture
def writer(database, db):
    with database.connect() as connection:
        # More often than PostgreSQL tries plans for the values at hand.
        for n in range(8):
            connection.execute(WRITE, [f"before {n}"])
        yield connection


@pytest.fixture
def app(database, db):
    """A role that may make triggers on the table."""
    with logins(database) as make:
        _name, url = make(name="app")
        with database.admin() as admin:
            admin.execute("create schema app authorization app")
        db.execute("grant usage on schema tide to app; grant all on tide.events to app")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TRAP)
            connection.execute("grant usage on schema app to public")
            yield connection
        with database.admin() as admin:
            admin.execute("drop schema app cascade")


def sprung(app):
    return app.execute("select who from app.sprung").fetchall()


def test_a_trigger_made_since_is_found_and_not_run(writer, db, app):
    app.execute(TRIGGER)
    for _ in range(2):
        with refused("42501", "app.fire()"):
            writer.execute(WRITE, ["a"])
    db.execute("drop trigger t on tide.events")
    assert writer.execute(WRITE, ["a"]).fetchone() == (1,)
    app.execute(TRIGGER)
    with refused("42501", "app.fire()"):
        writer.execute(WRITE, ["b"])
    assert sprung(app) == []


def test_a_trigger_whose_transaction_ends_during_the_write_is_found_and_not_run(writer, db, app):
    """The write has its snapshot by then, and waits for the lock on the table."""
    outcome: list[object] = []

    def write() -> None:
        try:
            outcome.append(writer.execute(WRITE, ["a"]).fetchone())
        except psycopg.Error as error:
            outcome.append(error.sqlstate)

    with app.transaction():
        app.execute(TRIGGER)
        thread = threading.Thread(target=write)
        thread.start()
        waits = "select from pg_locks l where not l.granted and l.pid = %s"
        wait_until(lambda: db.execute(waits, [writer.info.backend_pid]).fetchone() is not None)
    thread.join(30)
    assert outcome == ["42501"]
    with refused("42501", "app.fire()"):
        writer.execute(WRITE, ["b"])
    assert sprung(app) == []


def test_an_answer_by_an_old_snapshot_is_not_kept(writer, app):
    """A transaction that sees the catalogs as they were before the trigger looks as well as it can, for itself."""
    writer.execute("begin isolation level repeatable read")
    writer.execute("select 1")
    app.execute(TRIGGER)
    writer.execute(WRITE, ["before 1"])
    writer.execute("rollback")
    with refused("42501", "app.fire()"):
        writer.execute(WRITE, ["a"])
    assert sprung(app) == []


def test_a_trigger_of_the_own_transaction_counts_until_it_is_rolled_back(writer, app):
    with refused("42501", "app.fire()"), writer.transaction():
        writer.execute(TRIGGER)
        writer.execute(WRITE, ["a"])
    assert sprung(app) == []
    assert writer.execute(WRITE, ["a"]).fetchone() == (1,)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("drop table tide.events cascade", "42P16"),
        ("alter table tide.events rename to gone", "42P16"),
        ("drop table tide.events cascade; create view tide.events as select ''::text as event_id", "42809"),
        ("alter table tide.events rename to gone; create table tide.events (event_id int primary key)", "42P16"),
    ],
)
def test_a_table_that_is_another_since_is_refused(writer, db, change, code):
    db.execute(change)
    for _ in range(2):
        with refused(code, "events"):
            writer.execute(WRITE, ["a"])
