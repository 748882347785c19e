"""A buffer that gets another column while others read it: neither fails because of the other."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from tests.sql.streams.streams import create
from tests.waiting import wait_until

WAITS = """
    select exists (select from pg_locks l join pg_database d on d.oid = l.database
                    where not l.granted and d.datname = current_database())
"""


def test_a_column_is_added_while_a_reader_has_named_the_view_and_not_yet_its_tables(database):
    with database.connect() as connection, database.connect() as reader, ThreadPoolExecutor(1) as writer:
        connection.execute("create table orders (id int primary key, region text, note text)")
        create(connection, "regions", "select id, region from orders")
        [(source,)] = connection.execute("select 'orders'::regclass::oid").fetchall()
        with reader.transaction(force_rollback=True):
            # As a plan is kept: a view over the view, which its tables are opened for later.
            reader.execute(f"create view tide_stream.over as select * from tide_stream.d_{source}")
            created = writer.submit(create, connection, "notes", "select id, note from orders")
            wait_until(lambda: reader.execute(WAITS).fetchone() == (True,), what="the other one waits")
            reader.execute(f"select count(*) from tide_stream.b_{source}")
        assert created.result() == "streams.public.notes"


def test_a_column_is_added_while_a_reader_has_read_a_table_and_not_yet_named_the_view(database):
    with database.connect() as connection, database.connect() as reader, ThreadPoolExecutor(1) as writer:
        connection.execute("create table orders (id int primary key, region text, note text)")
        create(connection, "regions", "select id, region from orders")
        [(source,)] = connection.execute("select 'orders'::regclass::oid").fetchall()
        # It looks first whether anything changed; and it is repeated.
        with suppress(psycopg.errors.DeadlockDetected), reader.transaction(force_rollback=True):
            reader.execute(f"select count(*) from tide_stream.b_{source}")
            created = writer.submit(create, connection, "notes", "select id, note from orders")
            wait_until(lambda: reader.execute(WAITS).fetchone() == (True,), what="the other one waits")
            reader.execute(f"select count(*) from tide_stream.d_{source}")
        assert created.result() == "streams.public.notes"
