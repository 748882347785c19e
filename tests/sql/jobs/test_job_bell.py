"""Who enqueues rings exactly when a queue sleeps and a scheduler would hear it, as with messages."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, enqueue
from tests.sql.support import listen

OPTIONS: list[dict[str, Any]] = [{}, {"priority": 5}, {"run_key": "k"}]
"""Of a job that is one row, and of such that are more."""


@pytest.fixture
def other(database: Database, session: Session) -> Iterator[Session]:
    with database.connect() as other:
        yield other


def heard(listener: Session, session: Session) -> list[str]:
    """Notifications arrive in the order of commits, so one of ours ends the wait."""
    session.execute("notify tide_outbox_notify, 'until here'")
    found: list[str] = []
    for notification in listener.notifies(timeout=10):
        if notification.payload == "until here":
            return found
        found.append(notification.payload)
    raise AssertionError("even our own notification did not arrive")


@pytest.mark.parametrize("options", OPTIONS)
def test_a_transaction_rings_once_while_the_queue_sleeps(
    session: Session, other: Session, options: dict[str, Any]
) -> None:
    listen(other)
    with session.transaction():
        enqueue(session, **options)
        enqueue(session, **options)
    assert heard(other, session) == ["jobs/mail"]
    session.execute("update tide.bell set armed = false")
    enqueue(session, **options)
    assert heard(other, session) == [], "someone looks at it"
    with session.transaction():
        session.execute("set transaction isolation level repeatable read")
        session.execute("select 1")
        other.execute("update tide.bell set armed = true")
        enqueue(session, **options)
    assert heard(other, session) == ["jobs/mail"], "its snapshot does not show that the bell is armed"


@pytest.mark.parametrize("options", OPTIONS)
def test_no_one_rings_for_no_one(session: Session, other: Session, options: dict[str, Any]) -> None:
    listen(other, seen_at="2020-01-01")
    enqueue(session, **options)
    assert heard(other, session) == []


@pytest.mark.parametrize("options", OPTIONS)
def test_a_transaction_in_two_phases_does_not_ring(session: Session, other: Session, options: dict[str, Any]) -> None:
    listen(other)
    with session.transaction():
        session.execute("set local tide.two_phase = on")
        enqueue(session, **options)
    assert heard(other, session) == []
