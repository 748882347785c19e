"""The border to psycopg: which of its errors become which of ours."""

import psycopg
import psycopg_pool
import pytest
from psycopg import errors as pg

from relay.database.connection import connect, connection_options, database_errors, storable
from relay.errors import ConfigError, MigrationError, NotConnected, RelayError
from relay.settings import Settings

CLOSED = "postgresql://user:hunter2@127.0.0.1:1/db"


def mapped(error):
    with pytest.raises((RelayError, type(error))) as caught, database_errors():
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (pg.QueryCanceled("statement timeout"), "timeout"),
        (pg.LockNotAvailable("lock timeout"), "locked"),
        (pg.IdleInTransactionSessionTimeout("idle"), "timeout"),
        (pg.AdminShutdown("terminated"), "not_connected"),
        (pg.CrashShutdown("crash"), "not_connected"),
        (pg.CannotConnectNow("starting up"), "not_connected"),
        (pg.TooManyConnections("too many"), "not_connected"),
        (pg.DeadlockDetected("deadlock"), "not_connected"),
        (pg.SerializationFailure("serialize"), "not_connected"),
        (psycopg.OperationalError("server closed the connection"), "not_connected"),
        (psycopg.InterfaceError("the connection is closed"), "not_connected"),
        (psycopg_pool.PoolTimeout("timeout"), "timeout"),
        (psycopg_pool.PoolClosed("closed"), "closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_may_work_later(error, code):
    ours = mapped(error)
    assert type(ours) is NotConnected
    assert ours.code == code
    assert ours.__cause__ is error
    assert str(ours).startswith("PostgreSQL: ")


def test_what_only_reads_may_write_later():
    ours = mapped(pg.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"))
    assert (type(ours), ours.code) == (NotConnected, "read_only")
    assert str(ours) == "PostgreSQL is read-only: cannot execute INSERT in a read-only transaction"


@pytest.mark.parametrize("kind", [pg.UndefinedTable, pg.UndefinedFunction, pg.UndefinedColumn, pg.InvalidSchemaName])
def test_a_schema_that_is_not_ours(kind):
    ours = mapped(kind("no such thing"))
    assert type(ours) is MigrationError
    assert str(ours) == "PostgreSQL: no such thing; apply the migrations: relay migrate"


LOGIN = "; check the user and the password in RELAY_POSTGRES_URL (or --postgres-url)"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (pg.InsufficientPrivilege, "; see docs/security.md for what each role needs"),
        (pg.InvalidPassword, LOGIN),
        (pg.InvalidAuthorizationSpecification, LOGIN),
        (pg.SyntaxError, ""),
    ],
)  # fmt: skip
def test_what_a_person_must_change_has_advice_about_that_cause_and_no_other(kind, advice):
    ours = mapped(kind("denied"))
    assert type(ours) is ConfigError
    assert str(ours) == f"PostgreSQL: denied{advice}"


@pytest.mark.parametrize("bug", [ValueError("x"), pg.NotNullViolation("x"), pg.InvalidTextRepresentation("x")])
def test_bugs_stay_what_they_are(bug):
    assert mapped(bug) is bug


def test_errors_of_our_own_go_through():
    error = NotConnected("x", code="y")
    assert mapped(error) is error


def test_no_password_in_an_error():
    assert "hunter2" not in str(mapped(psycopg.OperationalError(f"cannot connect to {CLOSED}")))


def test_many_lines_become_one():
    assert str(mapped(psycopg.OperationalError("one\n  two\n"))) == "PostgreSQL: one two"


def test_a_server_that_is_not_there():
    with pytest.raises(NotConnected) as caught:
        connect(Settings(postgres_url=CLOSED), "test")
    assert "hunter2" not in str(caught.value)


def test_every_wait_for_the_server_has_a_limit():
    options = connection_options(Settings(postgres_url=CLOSED, connect_timeout_seconds=7), "name")
    assert options["connect_timeout"] == 7
    assert options["tcp_user_timeout"] == 30_000
    assert options["autocommit"] is True
    assert connection_options(Settings(postgres_url=CLOSED, connect_timeout_seconds=0.1), "")["connect_timeout"] == 2


def test_any_text_can_be_made_storable():
    assert storable("ü\0\ud800") == "ü\ufffd?"
