"""No test declares handlers or middleware for the next one. Those of a module may share a database."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from relay.jobs import middleware
from relay.jobs.testing import own_handlers
from tests.services.postgres import Database, PostgresServer


@pytest.fixture(autouse=True)
def _own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(middleware, "_scopes", [])
    with own_handlers():
        yield


@pytest.fixture(scope="module")
def shared(_postgres18: PostgresServer) -> Iterator[Database]:
    """One database for all tests of a module: each has a queue, or jobs of a name, of its own."""
    _postgres18.start()
    taken = _postgres18.take_database()
    yield taken
    _postgres18.give_back_database(taken)


@pytest.fixture
def look(shared: Database) -> Iterator["psycopg.Connection[Any]"]:
    """Another session."""
    with shared.connect() as connection:
        yield connection
