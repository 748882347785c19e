"""Readers of a group see one state of its sources, whatever is written meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.crowd import TABLES, WRITERS, write
from tests.sql.streams.groups import together
from tests.sql.streams.streams import Connection, behind, create, refresh
from tests.waiting import wait_until

# What each is a function of: the source stream of all of them, as of one moment.
STREAMS = {
    "counts": "select region, count(*) as orders from source group by region",
    "sums": "select region, sum(order_id) as ids from source group by region",
    "pair": "select c.region, c.orders, s.ids from counts c left join sums s on s.region = c.region",
}
STATE = "select coalesce(jsonb_agg(to_jsonb(r) order by r.region nulls first), '[]')::text from ({query}) r"
PAIRS = "select c.region, c.orders, s.ids from counts c full join sums s on s.region = c.region"
TRUTH = "select region, count(*) as orders, sum(order_id) as ids from source group by region"


class Reader:
    """Compares, in one snapshot after the other, two members of the group with the third."""

    def __init__(self, url: str) -> None:
        self.seen: set[str] = set()
        self.torn = 0
        self._stop = threading.Event()
        self._url = url

    def run(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not self._stop.wait(0.001):
                with connection.transaction():
                    [(pairs,)] = connection.execute(STATE.format(query=PAIRS)).fetchall()  # type: ignore[arg-type]
                    [(pair,)] = connection.execute(STATE.format(query="select * from pair")).fetchall()  # type: ignore[arg-type]
                self.torn += pairs != pair
                self.seen.add(pairs)

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        create(connection, "source", "select order_id, region from orders", refresh_mode="DIFFERENTIAL")
        analyse_and_keep(connection, "source")
        yield connection


def make(connection: Connection, diamond_consistency: str) -> None:
    for name, query in STREAMS.items():
        create(connection, name, query, refresh_mode="DIFFERENTIAL", diamond_consistency=diamond_consistency)
        analyse_and_keep(connection, name)


def test_readers_of_a_group_see_states_that_its_source_had_and_no_other(database, connection):
    make(connection, "atomic")
    refresh(connection, "source")
    assert len(together(connection, "pair")) == 3
    states = {connection.execute(STATE.format(query=TRUTH)).fetchall()[0][0]}
    reader = Reader(database.url)
    with ThreadPoolExecutor(WRITERS + 1) as threads:
        reading = threads.submit(reader.run)
        writing = [threads.submit(write, database.url, seed) for seed in range(WRITERS)]
        while not all(done.done() for done in writing):
            if behind(connection, "source"):
                refresh(connection, "source")
            states.add(connection.execute(STATE.format(query=TRUTH)).fetchall()[0][0])
            together(connection, "pair")
            connection.execute("select tide.stream_clean()")
        for done in writing:
            done.result()
        reader.stop()
        reading.result()
    assert reader.torn == 0 and len(reader.seen) > 5
    assert reader.seen <= states
    [(by_changes,)] = connection.execute("""
        select count(*) from tide.stream_history join tide.stream line using (stream_id)
         where action = 'DIFFERENTIAL' and line.name = 'public.pair'""").fetchall()
    assert by_changes > 5


def test_readers_of_stream_tables_that_are_alone_see_two_states(database, connection):
    make(connection, "none")
    reader = Reader(database.url)
    numbers = iter(range(1, 1_000_000))

    def torn() -> bool:
        connection.execute("insert into orders values (%s, 'north', 1)", [next(numbers)])
        for name in ("source", *STREAMS):
            refresh(connection, name)
        assert not reading.done(), "it reads until it is stopped"
        return reader.torn > 0

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(reader.run)
        wait_until(torn, 60, "a reader sees two states")
        reader.stop()
        reading.result()
