"""No lost wake-up: real drains and LISTEN, no timer at all, and still nothing is left lying.

Each round ends in silence. A wake-up that is lost in it is not repaired by the next publisher: the round never ends.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

from relay.backends.memory.sink import forget, store
from relay.drains.outbox import Reader
from relay.models import Drain
from relay.settings import Settings
from tests.sql.outbox.writers import Writers
from tests.sql.support import LEASE_MS, listen, make_pipeline, publish
from tests.waiting import wait_until
from workers import drain
from workers.resources import Resources

ROUNDS = 150
WRITERS = 4
# A wake-up that is lost never comes: a loaded machine may take its time, at one message a batch.
PATIENCE_SECONDS = 60


class Sleeper:
    """Emits drains as a scheduler does, but without a timer: after an idle one it waits for a notification only."""

    def __init__(self, database, resources, pipeline="p"):
        self.sleeps = 0
        self.wake_ups = 0
        self.polls = 0
        self._pipeline = pipeline
        self._tools = resources
        self._database = database
        self._stop = threading.Event()

    def stop(self):
        self._stop.set()

    def run(self):
        with self._database.connect() as session:
            listen(session)
            for number in itertools.count(1):
                drain.run(self._tools, Drain(self._pipeline, 0, number, LEASE_MS))
                outcome = session.execute("select outcome from tide.drain where pipeline = %s", [self._pipeline])
                outcome = outcome.fetchone()[0]
                assert outcome in {"idle", "again", "more"}
                if outcome == "again":
                    self.polls += 1
                    self._stop.wait(0.002)
                elif outcome == "idle" and not self._sleep(session):
                    return

    def _sleep(self, session):
        """Until a notification comes; False when the test is over."""
        self.sleeps += 1
        while not self._stop.is_set():
            if list(session.notifies(timeout=0.1, stop_after=1)):
                self.wake_ups += 1
                return True
        return False


@contextmanager
def asleep(database, pipeline="p"):
    """A sleeper at work, and the ids that its pipeline delivered."""
    name = f"{database.name}-{pipeline}-{database.server.version}"
    with ExitStack() as stack:
        stack.callback(forget, name)
        resources = Resources(Settings(postgres_url=database.url), threads=2)
        stack.callback(resources.close)
        with database.connect() as owner:
            config = "jsonb_build_object('sink_type', 'memory', 'name', %s::text, 'batch_size', 1)"
            owner.execute(f"select tide.relay_set_outbox(%s, 'orders', {config})", [pipeline, name])
        pool = stack.enter_context(ThreadPoolExecutor(1))
        sleeper = Sleeper(database, resources, pipeline)
        running = pool.submit(sleeper.run)
        try:
            yield sleeper, lambda: [record.id for record in store(name).received]
        finally:
            sleeper.stop()
        running.result()


@pytest.fixture
def outbox(database):
    make_pipeline(database)


class Round:
    """Writers that start together and each end one transaction, after a while of their own."""

    def __init__(self, database, stack):
        self._pool = stack.enter_context(ThreadPoolExecutor(WRITERS))
        self._sessions = [stack.enter_context(database.connect()) for _ in range(WRITERS)]
        self._chances = [Random(number) for number in range(WRITERS)]

    def run(self):
        """The ids that were committed."""
        ids = self._pool.map(self._write, self._sessions, self._chances)
        return [id_ for id_ in ids if id_ is not None]

    @staticmethod
    def _write(session, chance):
        isolation = chance.choice(["read committed"] * 5 + ["repeatable read"])
        session.execute("select pg_sleep(%s)", [chance.uniform(0, 0.012)])
        session.execute(f"begin isolation level {isolation}")
        id_ = publish(session)
        session.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0, chance.uniform(0, 0.01)])])
        commits = chance.random() < 0.8
        session.execute("commit" if commits else "rollback")
        return id_ if commits else None


def wait_for(delivered, committed, what):
    wait_until(lambda: len(delivered()) >= len(committed), PATIENCE_SECONDS, what)


def test_no_wake_up_is_lost_between_a_last_look_and_a_sleep(database, outbox):
    committed = []
    with ExitStack() as stack:
        writers = Round(database, stack)
        sleeper, delivered = stack.enter_context(asleep(database))
        for number in range(ROUNDS):
            committed += writers.run()
            wait_for(delivered, committed, f"everything of round {number} is delivered")
        assert delivered() == sorted(committed)
    assert sleeper.wake_ups > ROUNDS / 10
    assert sleeper.sleeps == sleeper.wake_ups + 1
    assert sleeper.polls, "some drains met an open publisher"


def test_two_groups_of_an_outbox_sleep_and_wake_on_their_own(database, outbox):
    committed = []
    with ExitStack() as stack:
        writers = Round(database, stack)
        first, delivered_first = stack.enter_context(asleep(database, "p"))
        second, delivered_second = stack.enter_context(asleep(database, "q"))
        for number in range(ROUNDS // 3):
            committed += writers.run()
            wait_for(delivered_first, committed, f"everything of round {number} is delivered to the first")
            wait_for(delivered_second, committed, f"everything of round {number} is delivered to the second")
        assert delivered_first() == delivered_second() == sorted(committed)
    assert first.wake_ups > 10
    assert second.wake_ups > 10


def test_under_a_steady_load_everything_is_delivered_and_the_last_message_too(database, outbox):
    writers = Writers(database, two_phase=False)
    with asleep(database) as (sleeper, delivered):
        with writers.running(writers=6, pauses_ms=(0, 5, 40)):
            wait_until(lambda: writers.count() > 1000, PATIENCE_SECONDS)
        wait_until(lambda: len(delivered()) >= writers.count(), PATIENCE_SECONDS)
        assert delivered() == sorted(writers.committed["orders"])
    assert sleeper.sleeps >= 1


@pytest.mark.parametrize("stays_open", [False, True], ids=["committed", "open"])
def test_what_is_published_in_the_last_moment_before_the_bell_is_armed_is_delivered(
    database, outbox, monkeypatch, stays_open
):
    """The worst moment: the drain has found nothing, and the publisher has found a silent bell."""
    published: list[int] = []
    read = Reader.read

    def read_late(self, after, settled=None, bell=None):
        if bell == "arm" and len(published) < 20:
            publisher.execute("update tide.bell set armed = false")
            publisher.execute("begin")
            published.append(publish(publisher))
            if not stays_open:
                publisher.execute("commit")
                return read(self, after, settled, bell)
            batch = read(self, after, settled, bell)
            publisher.execute("commit")
            return batch
        return read(self, after, settled, bell)

    monkeypatch.setattr(Reader, "read", read_late)
    with database.connect() as publisher, asleep(database) as (sleeper, delivered):
        wait_until(lambda: len(published) == 20 and len(delivered()) == 20, PATIENCE_SECONDS)
        assert delivered() == published
    assert sleeper.wake_ups == 0, "no notification was needed, and none was sent"
