"""The texts of our errors hold what PostgreSQL says, and never the statement that met it."""

import threading

import psycopg
import pytest

from relay.database.connection import database_errors
from relay.errors import NotConnected
from relay.inbox import rows
from relay.jobs import job
from relay.jobs.ends import failed
from relay.process.unforeseen import described
from relay.reasons import reason_of, sentence_of
from tests.services.postgres import Database
from tests.waiting import wait_until

# What libpq gives for a session that is ended while a function runs: nothing but text.
LOST = """consuming input failed: terminating connection due to administrator command
DETAIL:  An operator did it.
HINT:  Wait.
CONTEXT:  SQL statement "insert into t (card)
DETAIL:  'hidden-card'
 values ('hidden-card')"
PL/pgSQL function tide.job_claim(integer) line 4 at SQL statement
server closed the connection unexpectedly"""
SENTENCE = "consuming input failed: terminating connection due to administrator command"


def test_a_lost_session() -> None:
    error = psycopg.OperationalError(LOST)
    assert reason_of(error) == f"{SENTENCE}. An operator did it. Wait"
    assert sentence_of(error) == SENTENCE


@pytest.mark.parametrize(
    "more",
    [
        "LINE 1: select hidden\n               ^",
        "QUERY:  select hidden",
        "KONTEXT:  SQL-Anweisung hidden",
        "ZEILE 12: select hidden",
        "DETAIL:  " + "hidden" * 100,
    ],
)
def test_a_statement_in_any_form(more: str) -> None:
    assert reason_of(psycopg.OperationalError(f"{SENTENCE}\n{more}")) == SENTENCE


def test_a_hint_behind_an_excerpt() -> None:
    text = 'column "x" does not exist\nLINE 1: select hidden\n               ^\nHINT:  Perhaps you meant y.'
    assert reason_of(psycopg.OperationalError(text)) == 'column "x" does not exist. Perhaps you meant y'


def test_a_server_that_is_not_there() -> None:
    text = 'connection to server at "::1", port 1 failed: Connection refused\n\tIs the server running?'
    assert reason_of(psycopg.OperationalError(text)) == " ".join(text.split())


def test_what_is_not_of_postgresql_stays() -> None:
    assert reason_of(ValueError("one\nDETAIL:  two")) == "one\nDETAIL:  two"


def test_an_error_of_sqlalchemy() -> None:
    class OfSqlalchemy(Exception):
        statement = "select hidden"
        orig = psycopg.OperationalError(LOST)

    assert reason_of(OfSqlalchemy("[SQL: select hidden]")) == f"{SENTENCE}. An operator did it. Wait"


def test_whatever_makes_a_reason_leaves_the_statement_out(database: Database) -> None:
    with psycopg.connect(database.url) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("do $$ begin perform 'hidden', 1 / 0; end $$")
    error = caught.value
    assert "hidden" in str(error)
    said = "division by zero"
    assert described(error) == f"DivisionByZero: {said}"
    assert failed(job()(lambda: None), error, 1, 3).error == f"DivisionByZero: {said}"
    assert rows.reason(error) == f"PostgreSQL: {said}"


def test_a_session_that_is_ended_in_a_statement(database: Database) -> None:
    with database.connect() as other, psycopg.connect(database.url, autocommit=True) as connection:
        pid = connection.info.backend_pid
        caught: list[NotConnected] = []

        def work() -> None:
            with pytest.raises(NotConnected) as error, database_errors():
                connection.execute("do $$ begin perform 'hidden', pg_sleep(60); end $$")
            caught.append(error.value)

        thread = threading.Thread(target=work)
        thread.start()
        asleep = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
        wait_until(lambda: other.execute(asleep, [pid]).fetchone())
        other.execute("select pg_terminate_backend(%s)", [pid])
        thread.join()
    assert "hidden" in str(caught[0].__cause__)
    assert str(caught[0]) == "PostgreSQL: terminating connection due to administrator command"
