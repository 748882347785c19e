"""Many consumers of one group at once: publishers are slow, consumers die, leases run out, and nothing is lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from tests.sql.consumers.consumers import commit, consumer_group, let_run_out, offset, one, poll, ranges
from tests.sql.outbox.crowd import Crowd
from tests.sql.outbox.writers import Writers
from tests.sql.support import make_outbox, publish, publish_many, refused
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, partition_size=1000)
        consumer_group(connection)
        yield connection


class Consumers(Crowd):
    """Threads that poll and commit, and sometimes die, or work for longer than their lease."""

    def __init__(self, database):
        super().__init__(database)
        self.committed: set[int] = set()
        self.polled = 0
        self.lost = 0

    def _once(self, session, name, chance):
        """One poll and what follows; false when the consumer died of it."""
        ids = poll(session, name, chance.choice([1, 7, 40]), seconds=1)
        with self._lock:
            self.polled += len(ids)
        if not ids:
            return True
        if chance.random() < 0.1:
            with self._lock:
                self.deaths += 1
            if chance.random() < 0.5:  # in the middle of its commit
                session.execute("begin")
                commit(session, name, ids[-1])
                session.close()
            return False
        if chance.random() < 0.05:  # as if the work took longer than the lease
            let_run_out(session, name)
            session.execute("select pg_sleep(%s)", [chance.uniform(0, 0.02)])
        for last in [chance.choice(ids), ids[-1]] if chance.random() < 0.3 else [ids[-1]]:
            if not self._commit(session, name, ids, last):
                break
        return True

    def _commit(self, session, name, ids, last):
        try:
            commit(session, name, last)
        except psycopg.errors.ObjectNotInPrerequisiteState:
            with self._lock:
                self.lost += 1
            return False
        with self._lock:
            self.committed |= {message for message in ids if message <= last}
        return True


def test_every_committed_message_is_committed_by_a_consumer_whoever_dies(db, database):
    writers, consumers = Writers(database, two_phase=False), Consumers(database)

    def enough():
        return writers.count() > 1000 and consumers.deaths > 10 and consumers.lost > 0

    with consumers.running(8):
        with writers.running(4):
            wait_until(lambda: ranges(db) is not None and enough(), 60, "there was enough of everything")
        wait_until(lambda: all_settled(db, writers), 30, "everything is settled")
    assert consumers.committed == writers.committed["orders"]
    assert offset(db) >= max(writers.committed["orders"])
    assert ranges(db) == []
    assert consumers.polled > len(consumers.committed)


def all_settled(session, writers):
    """Whether the offset has passed everything; whatever ranges there are have neither gaps nor overlaps meanwhile."""
    ranges(session)
    return offset(session) >= max(writers.committed["orders"])


def blocked(session, other):
    return one(session, "select cardinality(pg_blocking_pids(%s)) > 0", other.info.backend_pid)


def test_polls_of_a_group_take_turns_and_share_nothing(db, database):
    publish_many(db, 10)
    with database.connect() as first, database.connect() as second, ThreadPoolExecutor() as pool:
        first.execute("begin")
        assert poll(first, "a", 5) == [1, 2, 3, 4, 5]
        polling = pool.submit(poll, second, "b", 5)
        wait_until(lambda: blocked(db, second))
        first.execute("commit")
        assert polling.result() == [6, 7, 8, 9, 10]


def test_a_poll_waits_for_no_other_group_and_for_no_publisher(db, database):
    consumer_group(db, "other")
    publish_many(db, 5)
    with database.connect() as first, database.connect() as publisher:
        first.execute("begin")
        poll(first, "a")
        publisher.execute("begin")
        publish(publisher)
        db.execute("set lock_timeout = '1s'")
        assert poll(db, "a", group="other") == [1, 2, 3, 4, 5]
        db.execute("select tide.consumer_heartbeat('g', 'b')")
        publish(db)


def test_a_message_of_a_slower_transaction_is_not_passed(db, database):
    with database.connect() as slow:
        slow.execute("begin")
        assert publish(slow) == 1
        assert publish(db) == 2
        assert poll(db, "a") == []
        assert offset(db) == 0
        slow.execute("commit")
    assert poll(db, "a") == [1, 2]


def test_a_publisher_that_polls_does_not_see_its_own_open_messages(db):
    with db.transaction():
        publish(db)
        assert poll(db, "a") == []
    assert poll(db, "a") == [1]


def test_a_consumer_that_is_killed_leaves_its_messages_to_others(db, database):
    publish_many(db, 5)
    with closing(database.connect()) as doomed, database.admin() as admin:
        poll(doomed, "a", seconds=1)
        doomed.execute("begin")
        commit(doomed, "a", 5)
        admin.execute("select pg_terminate_backend(%s)", [doomed.info.backend_pid])
    assert poll(db, "b") == []
    assert wait_until(lambda: poll(db, "b"), what="the lease has run out") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_poll_with_an_old_snapshot_is_refused(db, isolation):
    db.execute(f"begin isolation level {isolation}")
    with refused("25000", 'consumer group "g" cannot be polled', isolation.upper(), hint="read committed"):
        poll(db, "a")
    db.execute("rollback")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_commit_belongs_to_a_transaction_of_any_kind(db, database, isolation):
    publish_many(db, 10)
    poll(db, "a", 5)
    with database.connect() as worker:
        worker.execute(f"begin isolation level {isolation}")
        worker.execute("select count(*) from tide.outbox")
        assert poll(db, "b", 5) == [6, 7, 8, 9, 10]
        assert commit(db, "b", 10) == 0
        assert commit(worker, "a", 3) == 3
        assert commit(worker, "a", 5) == 5
        worker.execute("commit")
    assert poll(db, "c") == []
    assert (offset(db), ranges(db)) == (10, [])


def test_a_commit_with_an_old_snapshot_settles_nothing_that_another_has_taken(db, database):
    publish_many(db, 5)
    poll(db, "a")
    with database.connect() as worker:
        worker.execute("begin isolation level repeatable read")
        worker.execute("select count(*) from tide.outbox")
        let_run_out(db)
        assert poll(db, "b") == [1, 2, 3, 4, 5]
        with pytest.raises(psycopg.errors.SerializationFailure):
            commit(worker, "a", 5)
    assert offset(db) == 0


def test_a_commit_with_an_old_snapshot_at_an_id_where_another_has_cut_is_to_be_tried_again(db, database):
    publish_many(db, 5)
    poll(db, "a")
    with database.connect() as worker:
        worker.execute("begin isolation level repeatable read")
        worker.execute("select count(*) from tide.outbox")
        let_run_out(db)
        assert poll(db, "b", 3) == [1, 2, 3]  # cut after 3
        with pytest.raises(psycopg.errors.SerializationFailure):
            commit(worker, "a", 3)
    assert offset(db) == 0


def test_of_two_that_commit_at_once_the_second_sees_what_the_first_has_settled(db, database):
    publish_many(db, 10)
    poll(db, "a", 5)
    poll(db, "b", 5)
    with database.connect() as first, database.connect() as second, ThreadPoolExecutor() as pool:
        first.execute("begin")
        assert commit(first, "b", 10) == 0
        committing = pool.submit(commit, second, "a", 5)
        wait_until(lambda: blocked(db, second))
        first.execute("commit")
        assert committing.result() == 10
