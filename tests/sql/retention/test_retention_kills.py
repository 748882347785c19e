"""Publishers, SQL consumers, a follower, retention, the making of outboxes: sessions of all are killed at random."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.retention.retention import make_line
from tests.sql.support import make_outbox, publish_many
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

KILLED = (psycopg.errors.AdminShutdown, psycopg.OperationalError)
KILL = """
select pg_terminate_backend(a.pid) from (
    select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
       and backend_type = 'client backend' order by random() limit 1) a
"""


class Commotion:
    """Everybody at once, each on a session that is opened again when it was killed."""

    def __init__(self, database) -> None:
        self._database = database
        self._stop = threading.Event()
        self.published: set[int] = set()
        self.seen: dict[str, set[int]] = {"p": set(), "g": set()}
        self.done: Counter[str] = Counter()

    def publish(self, db) -> None:
        self.published.update(publish_many(db, random.choice([1, 3, 10])))
        time.sleep(0.001)  # a whole partition in the time of an extension is too fast for partitions so small

    def follow(self, db) -> None:
        offset, top = db.execute("""
            select g.offset_id, h.horizon from tide.consumer_group g, tide.outbox_horizon(g.outbox_id) h
             where g.name = 'p'""").fetchone()
        rows = db.execute(
            "select id from tide.message where outbox_id = 1 and id > %s and id <= %s order by id limit 500",
            [offset, top],
        )
        if ids := [number for (number,) in rows]:
            self.seen["p"].update(ids)
            db.execute("update tide.consumer_group set offset_id = %s where name = 'p'", [ids[-1]])

    def poll(self, db) -> None:
        ids = [number for (number,) in db.execute("select id from tide.poll_outbox('g', 'worker', 500, 1)")]
        if ids:
            self.seen["g"].update(ids)
            db.execute("select tide.commit_offset('g', 'worker', %s)", [ids[-1]])

    def retain(self, db) -> None:
        row = db.execute("select truncated, dropped, lost from tide.outbox_retain('orders')").fetchone()
        self.done.update(truncated=row[0], dropped=row[1], lost=row[2])

    def extend(self, db) -> None:
        db.execute("select tide.outbox_extend('orders')")

    def make_and_drop(self, db) -> None:
        make_outbox(db, "other")
        db.execute("select tide.outbox_drop('other')")
        self.done["made"] += 1

    def kill(self, db) -> None:
        time.sleep(random.uniform(0, 0.1))
        self.done["killed"] += len(db.execute(KILL).fetchall())

    def keep(self, action) -> None:
        while not self._stop.is_set():
            try:
                with self._database.connect() as db:
                    while not self._stop.is_set():
                        action(db)
            except (psycopg.errors.LockNotAvailable, *KILLED):
                pass

    def run(self, enough) -> None:
        actions = [self.publish, self.publish, self.follow, self.poll, self.retain, self.retain, self.extend]
        actions += [self.make_and_drop, self.kill]
        with ThreadPoolExecutor(len(actions)) as pool:
            working = [pool.submit(self.keep, action) for action in actions]
            try:
                wait_until(
                    lambda: enough() or any(one.done() for one in working), 300, "there was enough of everything"
                )
            finally:
                self._stop.set()
            for one in working:
                one.result()


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, partition_size=3000, retention_hours=0)
        make_line(connection)
        connection.execute("select tide.create_consumer_group('g', 'orders')")
    return database


def test_every_message_reaches_every_group_whoever_is_killed(db):
    commotion = Commotion(db)
    done = commotion.done
    commotion.run(lambda: done["dropped"] > 3 and done["killed"] > 15 and done["made"] > 0)
    assert done["lost"] == 0

    with db.connect() as session:

        def settled():
            commotion.follow(session)
            commotion.poll(session)
            return all(commotion.published <= seen for seen in commotion.seen.values())

        wait_until(settled, 20, "both groups have seen every message")
