"""Refreshes between writers of every kind. The long crowd, with a fleet that is killed, is part of `make kill-loop`."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.crowd import STREAMS, TABLES, WRITERS, write
from tests.sql.streams.streams import assert_equal, behind, create, refresh


@pytest.mark.timeout(400)  # each of the stream tables is refreshed as often as it can be
def test_no_change_is_missed_whoever_commits_when(database):
    with database.connect() as connection, ThreadPoolExecutor(WRITERS) as writers:
        connection.execute(TABLES)
        for name, query in STREAMS.items():
            create(connection, name, query, refresh_mode="DIFFERENTIAL")
            analyse_and_keep(connection, name)
        writing = [writers.submit(write, database.url, seed) for seed in range(WRITERS)]
        while not all(done.done() for done in writing):
            for name in STREAMS:
                if behind(connection, name):
                    refresh(connection, name, locked="orders, customers")
            connection.execute("select tide.stream_clean()")
        for done in writing:
            done.result()
        # What is not behind has to be equal, not only what was just refreshed.
        for name in STREAMS:
            if behind(connection, name):
                refresh(connection, name)
            assert_equal(connection, name)
        counts = dict(
            connection.execute("""
            select line.name, count(*) from tide.stream_history join tide.stream line using (stream_id)
             where action = 'DIFFERENTIAL' group by 1
        """).fetchall()
        )
        followed = {name for name in STREAMS if counts.get(f"public.{name}", 0) > 2}
        assert followed == STREAMS.keys() - {"most"}
