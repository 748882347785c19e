"""Sessions on a real PostgreSQL: their settings, and the errors that a server gives."""

import pytest

from relay.database.connection import connect, database_errors, make_worker_pool
from relay.errors import ConfigError, NotConnected
from relay.settings import Settings


def test_a_session_has_our_settings_whatever_the_database_says(database):
    with database.connect() as owner:
        for setting in (
            "default_transaction_isolation = 'serializable'",
            "enable_seqscan = on",
            "search_path = public",
            "statement_timeout = 0",
            "timezone = 'Asia/Tokyo'",
        ):
            owner.execute(f"alter database {database.name} set {setting}")
    session = connect(Settings(postgres_url=database.url, statement_timeout_seconds=4), "test name")
    try:
        shown = {
            name: session.execute(f"show {name}").fetchone()[0]
            for name in (
                "application_name",
                "default_transaction_isolation",
                "enable_seqscan",
                "plan_cache_mode",
                "search_path",
                "statement_timeout",
                "timezone",
            )
        }
    finally:
        session.close()
    assert shown == {
        "application_name": "test name",
        "default_transaction_isolation": "read committed",
        "enable_seqscan": "off",
        "plan_cache_mode": "force_custom_plan",
        "search_path": "pg_catalog",
        "statement_timeout": "4s",
        "timezone": "UTC",
    }


def test_a_wrong_password_is_for_a_person_to_change(database):
    url = database.server.process.url_of(database.name, "tide_owner", "not-the-password")
    with pytest.raises((ConfigError, NotConnected)) as caught:
        connect(Settings(postgres_url=url), "test")
    assert "password authentication failed" in str(caught.value)
    assert "not-the-password" not in str(caught.value)


def test_a_statement_that_takes_too_long_is_ended(database):
    session = connect(Settings(postgres_url=database.url, statement_timeout_seconds=0.05), "test")
    try:
        with pytest.raises(NotConnected) as caught, database_errors():
            session.execute("select pg_sleep(10)")
    finally:
        session.close()
    assert caught.value.code == "timeout"


def test_workers_do_not_wait_for_the_disk_but_where_they_say_so(database):
    pool = make_worker_pool(Settings(postgres_url=database.url), threads=1)
    try:
        with pool.connection() as connection:
            assert connection.execute("show synchronous_commit").fetchone() == ("off",)
            assert connection.autocommit
    finally:
        pool.close()


def test_an_inbox_that_is_locked_holds_a_worker_for_a_moment_only(database):
    write = "select tide.inbox_write('a', '{1}', '{null}', '{null}', '{null}', '{null}', '{1}', '{null}', '{null}')"
    pool = make_worker_pool(Settings(postgres_url=database.url, statement_timeout_seconds=60), threads=1)
    try:
        with pool.connection() as connection, database.connect() as owner:
            owner.execute("select tide.inbox_create('a')")
            with owner.transaction():
                owner.execute("lock table tide.a in access exclusive mode")
                with pytest.raises(NotConnected, match=r"due to lock timeout$") as caught, database_errors():
                    connection.execute(write)
            assert caught.value.code == "locked"
            assert connection.execute(write).fetchone() == (1,)
    finally:
        pool.close()
