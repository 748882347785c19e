"""Consumers that do everything there is, at random: what is worked on in the commit is done once, none left out."""

import contextlib

import psycopg
import pytest

from tests.sql.consumers.consumers import commit, consumer_group, let_run_out, offset, one, poll, ranges
from tests.sql.outbox.crowd import Crowd
from tests.sql.support import make_outbox, publish, publish_many
from tests.waiting import wait_until


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, partition_size=1000)
        consumer_group(connection)
        connection.execute("create table work (message bigint)")
        yield connection


class Consumers(Crowd):
    """Threads of workers, of a publisher, and of one who looks after the group."""

    def __init__(self, database, seeks=False):
        super().__init__(database, self._publish, self._look)
        self._seeks = seeks
        self.refused = 0

    def _once(self, session, name, chance):
        """Polls, now and then twice or in a savepoint that is rolled back; then works on it, late or not, or dies."""
        with contextlib.suppress(psycopg.Rollback), session.transaction():
            if chance.random() < 0.1:
                poll(session, name, 5)
                raise psycopg.Rollback
        batches: list[list[int]] = []
        for _ in range(chance.choice([1, 1, 2])):
            ids = poll(session, name, chance.choice([1, 6, 30]))
            # What it has already and gets again had run out, and another may have the rest of that batch.
            batches = [batch for batch in batches if not set(batch) & set(ids)] + [ids]
        if chance.random() < 0.2:
            let_run_out(session, name)
            session.execute("select pg_sleep(%s)", [chance.uniform(0, 0.03)])
        for ids in filter(None, batches):
            if chance.random() < 0.3:
                self._tolerated(session, "select tide.extend_lease('g', %s)", name)
            if not self._settle(session, name, ids, chance):
                return False
        return True

    def _settle(self, session, name, ids, chance):
        cut = chance.choice([len(ids), chance.randint(1, len(ids))])
        for part in filter(None, (ids[:cut], ids[cut:])):
            how = chance.random()
            try:
                with contextlib.suppress(psycopg.Rollback), session.transaction():
                    session.execute(f"set transaction isolation level {chance.choice(ISOLATION)}")
                    session.execute("insert into work select unnest(%s::bigint[])", [part])
                    commit(session, name, part[-1])
                    if how < 0.1:
                        raise psycopg.Rollback
                    if how < 0.15:
                        session.close()
                        self.deaths += 1
            except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.SerializationFailure):
                self.refused += 1
                return True
            except psycopg.OperationalError:
                return False
            if session.closed:
                return False
            if how < 0.1:
                return True
        return True

    def _publish(self, chance):
        with self._database.connect() as session:
            while not self._stop.is_set():
                with contextlib.suppress(psycopg.Rollback), session.transaction():
                    publish_many(session, chance.choice([1, 20]))
                    if chance.random() < 0.1:
                        raise psycopg.Rollback
                self._stop.wait(chance.choice([0, 0.01]))

    def _look(self, chance):
        with self._database.connect() as session:
            while not self._stop.wait(0.005):
                what = chance.choice(LOOKS + ["seek"] * self._seeks)
                if what == "seek":
                    back = chance.randint(0, offset(session))
                    self._tolerated(session, "select tide.seek_offset('g', 'c0', %s)", back)
                else:
                    session.execute(what)
                if chance.random() < 0.1:
                    let_run_out(session)
                ranges(session)

    def _tolerated(self, session, statement, *parameters):
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            session.execute(statement, parameters)


ISOLATION = ["read committed", "read committed", "repeatable read", "serializable"]
LOOKS = [
    "select tide.consumers_reap()",
    "select tide.consumer_lag()",
    "select tide.consumer_status('g')",
    "select tide.consumer_heartbeat('g', 'c1')",
    "update tide.consumer set seen_at = '-infinity' where name = 'c2'",
]


def settle_the_rest(db):
    let_run_out(db)
    while ids := poll(db, "last"):
        with db.transaction():
            db.execute("insert into work select unnest(%s::bigint[])", [ids])
            commit(db, "last", ids[-1])
    assert ranges(db) == []


def test_work_in_the_transaction_of_its_commit_is_done_exactly_once(db, database):
    crowd = Consumers(database)
    with crowd.running(6):
        wait_until(lambda: one(db, "select count(*) from work") > 1500, 60, "enough is done")
    settle_the_rest(db)
    published = {row[0] for row in db.execute("select id from tide.message")}
    worked = [row[0] for row in db.execute("select message from work")]
    assert sorted(worked) == sorted(published)
    assert crowd.refused > 0
    assert crowd.deaths > 0


def test_wherever_a_group_is_set_nothing_is_left_out(db, database):
    crowd = Consumers(database, seeks=True)
    with crowd.running(6):
        wait_until(lambda: one(db, "select count(*) from work") > 1500, 60, "enough is done")
    settle_the_rest(db)
    published = {row[0] for row in db.execute("select id from tide.message")}
    assert {row[0] for row in db.execute("select message from work")} == published
    last = publish(db)
    assert poll(db, "last") == [last]
