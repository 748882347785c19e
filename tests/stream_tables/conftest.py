"""One database of stream tables for all tests of a module: creating them is what takes time."""

import os

import pytest

from tests.conftest import NEWEST
from tests.stream_tables.oracle import Oracle
from tests.stream_tables.tables import TABLES, Changes

SEED = int(os.environ.get("STREAM_SEED", "1"))


@pytest.fixture(scope="module")
def oracle(_postgres_servers):
    """Stream tables over `tables.py`, on the newest PostgreSQL, or the first of TEST_POSTGRES."""
    version = int(os.environ.get("TEST_POSTGRES", str(NEWEST)).split()[0])
    server = _postgres_servers(version)
    server.start()
    database = server.take_database()
    with database.connect() as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(TABLES)
        yield Oracle(connection)
    server.give_back_database(database)


@pytest.fixture(scope="module")
def changes(oracle):
    """Random changes of the tables, which have rows already. STREAM_SEED chooses them."""
    made = Changes(oracle.connection, SEED)
    made.fill()
    return made
