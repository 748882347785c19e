"""What tests of the scheduler share."""

import pytest
from psycopg.types.json import Jsonb


@pytest.fixture
def make(database):
    def make(name: str, **config):
        with database.connect() as connection:
            connection.execute("select tide.outbox_create_if_not_exists('orders')")
            given = Jsonb({"sink_type": "memory"} | config)
            connection.execute("select tide.relay_set_outbox(%s, 'orders', %s)", [name, given])

    return make
