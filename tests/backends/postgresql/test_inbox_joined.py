"""The inbox sink on the drain's own connection, in the transaction that settles."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from relay.backends.postgresql.sink import InboxSink
from relay.errors import ConfigError, NotConnected
from tests.backends.postgresql.inbox_harness import InboxHarness
from tests.backends.steps import publish, records
from tests.services.postgres import Database


@pytest.fixture
def harness(inbox_database: Database) -> InboxHarness:
    return InboxHarness(inbox_database)


@pytest.fixture
def drain(harness: InboxHarness) -> Iterator["psycopg.Connection[Any]"]:
    with harness.database.connect() as connection:
        yield connection


def joined(harness: InboxHarness, connection: "psycopg.Connection[Any]", **keys: Any) -> InboxSink:
    sink = harness.make_sink(postgres_url=None, **keys)
    assert isinstance(sink, InboxSink)
    assert sink.transactional
    sink.open()
    sink.use_transaction(connection)
    return sink


def test_the_drain_alone_commits(harness: InboxHarness, drain: "psycopg.Connection[Any]") -> None:
    sink = joined(harness, drain)
    with drain.transaction():
        assert publish(sink, records(harness, 1, 3)) == []
        assert harness.rows() == []
    drain.execute("begin")
    assert publish(sink, records(harness, 4, 3)) == []
    drain.execute("rollback")
    assert [row["event_sequence"] for row in harness.rows()] == [1, 2, 3]
    sink.close()
    assert not drain.closed


def test_a_refusal_does_not_spoil_the_transaction(harness: InboxHarness, drain: "psycopg.Connection[Any]") -> None:
    sink = joined(harness, drain)
    batch = records(harness, 1, 3)
    batch[1] = batch[1]._replace(body=b"{")
    with drain.transaction():
        assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "refused")]
        drain.execute("select 1")
    assert [row["event_sequence"] for row in harness.rows()] == [1, 3]


def test_nothing_is_written_without_a_connection(harness: InboxHarness, drain: "psycopg.Connection[Any]") -> None:
    sink = harness.make_sink(postgres_url=None)
    sink.open()
    with pytest.raises(NotConnected):
        publish(sink, records(harness, 1, 1))
    sink = joined(harness, drain)
    sink.close()
    with pytest.raises(NotConnected):
        publish(sink, records(harness, 1, 1))


def test_each_drain_brings_its_own(harness: InboxHarness, drain: "psycopg.Connection[Any]") -> None:
    sink = joined(harness, drain)
    with harness.database.connect() as another:
        sink.use_transaction(another)
        drain.close()
        with another.transaction():
            assert publish(sink, records(harness, 1, 1)) == []
    assert len(harness.rows()) == 1


def test_an_inbox_that_does_not_exist_is_for_a_person_or_made_when_configured_so(
    harness: InboxHarness, drain: "psycopg.Connection[Any]"
) -> None:
    with pytest.raises(ConfigError, match=r"tide\.inbox_create\('made'\)"):
        joined(harness, drain, inbox="made")
    sink = joined(harness, drain, inbox="made", create_inbox=True)
    with drain.transaction():
        assert publish(sink, records(harness, 1, 1)) == []
    assert drain.execute("select count(*) from tide.made").fetchone() == (1,)


def test_a_session_that_is_ended_is_not_connected(harness: InboxHarness, drain: "psycopg.Connection[Any]") -> None:
    sink = joined(harness, drain)
    pid = drain.info.backend_pid
    drain.execute("begin")
    with harness.database.admin() as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(NotConnected):
        publish(sink, records(harness, 1, 1))
