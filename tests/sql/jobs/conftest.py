"""A session with a queue, and a worker in it: most tests of jobs in SQL begin with them."""

from collections.abc import Iterator

import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """With the queue `mail`."""
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        yield session


@pytest.fixture
def reports(session: Session) -> None:
    """A second queue."""
    session.execute("select tide.job_queue_create('reports')")


@pytest.fixture
def worker(session: Session) -> Worker:
    return Worker(session)
