import pytest

from tests.sql.inbox.inboxes import call


@pytest.fixture
def db(database):
    """With an inbox, and a table for what handlers do."""
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        connection.execute("create table public.effect (event_id text, n bigint generated always as identity)")
        yield connection
