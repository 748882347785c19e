"""Many pipelines: a statement asks about some, a turn does some of what is due, and a bell does not wait for all."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from relay.models import Drain
from relay.operations.locks import slot_of
from relay.process.metrics.scheduler import SchedulerMetrics
from relay.settings import Settings
from scheduler import measures as measures_module
from scheduler import ownership as ownership_module
from scheduler import starts as starts_module
from scheduler.catalog import Catalog
from scheduler.heard import Heard
from scheduler.ownership import Ownership
from scheduler.session import Session
from tests.sql.support import publish
from tests.waiting import wait_until

NAMES = [f"p{number:02}" for number in range(40)]
SOME = 5


class Counted(Session):
    """Remembers how many pipelines each statement was about."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked: list[tuple[str, int]] = []

    def _run(self, statement, /, **parameters):
        if hasattr(self, "asked"):
            self.asked.append((statement, max(map(len, filter(is_list, parameters.values())), default=0)))
        return super()._run(statement, **parameters)

    def take_asked(self) -> list[tuple[str, int]]:
        asked, self.asked = self.asked, []
        return asked


def is_list(value: object) -> bool:
    return isinstance(value, list)


class Broker:
    """In place of Dispatch: takes everything."""

    paused_until = 0.0

    def __init__(self) -> None:
        self.drains: list[Drain] = []

    def emit(self, drain: Drain, direction: str) -> bool:
        self.drains.append(drain)
        return True


class One:
    """A scheduler without its loop."""

    def __init__(self, settings: Settings) -> None:
        self.session = Counted(settings)
        self.broker = Broker()
        self.registry = CollectorRegistry()
        self.catalog = Catalog("default")
        self.owned = Ownership(self.session, self.broker, SchedulerMetrics(self.registry))  # type: ignore[arg-type]

    def discover(self) -> None:
        for _ in self.catalog.read(self.session):
            pass
        for _ in self.owned.follow(self.catalog.take_changed(), self.catalog.specs):
            pass

    def share(self, schedulers: int = 1) -> int:
        """How many pieces it took."""
        return sum(1 for _ in self.owned.share(self.catalog.specs, schedulers))

    def names(self) -> set[str]:
        return {name for name in NAMES if name in self.owned}


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders'), tide.outbox_create('users')")
        for name in NAMES:
            outbox = "users" if name == NAMES[-1] else "orders"
            connection.execute('select tide.relay_set_outbox(%s, %s, \'{"sink_type": "memory"}\')', [name, outbox])
        yield connection


@pytest.fixture
def start(database, db, monkeypatch) -> Iterator[type]:
    """Makes schedulers that have discovered all pipelines."""
    for module, bound in ((ownership_module, "PIPELINES"), (measures_module, "PIPELINES"), (starts_module, "STARTS")):
        monkeypatch.setattr(module, bound, SOME)
    monkeypatch.setattr(ownership_module, "POLLED", SOME)
    monkeypatch.setattr(starts_module, "WINDOW_SECONDS", 3600.0)
    made: list[One] = []

    def start() -> One:
        made.append(One(Settings.load(postgres_url=database.url)))
        made[-1].discover()
        return made[-1]

    yield start  # type: ignore[misc]
    for one in made:
        one.session.close()


@pytest.fixture
def one(start) -> One:
    """It owns all, and has claimed nothing yet."""
    one = start()
    assert one.share() >= len(NAMES) // SOME
    assert one.names() == set(NAMES)
    one.session.take_asked()
    return one


def end(db, one: One, *names: str, outcome: str = "idle") -> None:
    """The last drains of these pipelines end, and the scheduler is notified."""
    db.execute("update tide.drain set number = 1, outcome = %s where pipeline = any(%s)", [outcome, list(names)])
    one.owned.hear(Heard(ended=set(names)))


def start_all(db, one: One) -> None:
    """Every pipeline has had its first drain, and sleeps."""
    for _ in range(len(NAMES)):
        one.owned.act()
        drains, one.broker.drains = one.broker.drains, []
        end(db, one, *(drain.pipeline for drain in drains))
    one.owned.act()
    assert one.owned.measures.waiting() == {}


def test_no_statement_is_about_more_than_some_pipelines(db, one):
    for _ in range(3 * len(NAMES)):
        one.owned.act()
        drains, one.broker.drains = one.broker.drains, []
        end(db, one, *(drain.pipeline for drain in drains))
        asked = one.session.take_asked()
        assert len(asked) <= 3, "a look, a poll, a claim"
        assert all(number <= SOME for _, number in asked), asked
    assert db.execute("select count(*) from tide.drain where number = 1").fetchone() == (len(NAMES),)


def test_first_drains_come_some_at_a_time(db, one):
    for _ in range(len(NAMES)):
        one.owned.act()
    assert len(one.broker.drains) == SOME, "none of them has ended"
    assert (one.owned.next_at() or 0.0) > time.monotonic() + 1, "and the loop does not spin meanwhile"
    end(db, one, one.broker.drains[0].pipeline)
    one.owned.act()
    one.owned.act()
    assert len(one.broker.drains) == SOME + 1


def test_a_bell_does_not_wait_for_those_that_are_new(db, one):
    start_all(db, one)
    awake = NAMES[-1]
    db.execute("update tide.pipeline set revision = nextval('tide.revisions') where name <> %s", [awake])
    one.discover()
    one.owned.hear(Heard(rings=Counter(users=1)))
    one.owned.act()
    assert [drain.pipeline for drain in one.broker.drains] == [awake], "though all others are to be claimed"


def test_a_bell_for_one_that_is_new_itself_starts_it_first(db, one):
    awake = NAMES[-1]
    one.owned._owned[awake].due_at = 1.0
    one.owned._agenda.put(one.owned._owned[awake])  # the last in its turn
    while len(one.broker.drains) < SOME:
        one.owned.act()
    one.broker.drains.clear()
    one.owned.hear(Heard(rings=Counter(users=1)))
    for _ in range(len(NAMES)):
        one.owned.act()
    assert [drain.pipeline for drain in one.broker.drains] == [awake]


def test_those_that_are_behind_start_first(db, one, monkeypatch):
    """When a scheduler takes over: no bell rang for what was published when there was none."""
    monkeypatch.setattr(ownership_module, "STARTS", SOME)
    publish(db, "users")
    for _ in range(len(NAMES)):
        one.owned.act()
    drains = [drain.pipeline for drain in one.broker.drains]
    assert NAMES[-1] in drains and len(drains) <= SOME + 1


def test_many_timers_wait_longer_and_those_of_queues_do_not(db, one, monkeypatch):
    monkeypatch.setattr(ownership_module, "POLLED_A_SECOND", len(NAMES) / 4)
    db.execute("select tide.job_queue_create('mail')")
    one.discover()
    one.share()
    states = one.owned._owned
    queue = next(name for name in states if states[name].spec.labels.direction == "jobs")
    for state in states.values():
        state.ended("idle", None, False, 0.0)
    one.owned._poll(list(states.values()), 1000.0)
    assert states[queue].due_at == 1000.0 + states[queue].spec.poll_seconds
    assert 1003 < states[NAMES[0]].due_at < 1006


def test_only_pipelines_that_moved_are_measured(db, one):
    start_all(db, one)
    lag = one.owned.measures.lag
    one.session.take_asked()
    assert sum(1 for _ in lag()) == 1 + len(NAMES) // SOME
    assert all(number <= SOME for _, number in one.session.take_asked())
    assert (sum(1 for _ in lag()), one.session.take_asked()) == (1, []), "they sleep"
    publish(db, "users")
    one.owned.hear(Heard(rings=Counter(users=1)))
    list(lag())
    assert one.session.take_asked()[0] == ("pipelines_lag", 1)
    labels = {"pipeline": NAMES[-1], "direction": "forward", "sink_type": "memory"}
    assert one.registry.get_sample_value("tide_relay_lag_messages", labels) == 1


def test_two_share_slots_and_one_takes_over_what_the_other_had(db, start):
    first, second = start(), start()
    first.share()
    for _ in range(3):
        first.share(2)
        second.share(2)
    assert first.names() | second.names() == set(NAMES) and not first.names() & second.names()
    assert abs(len(first.names()) - len(second.names())) <= 2
    owners = dict(db.execute("select owner, count(*) from tide.drain group by 1").fetchall())
    assert owners == {first.session.scheduler_id: len(first.names()), second.session.scheduler_id: len(second.names())}
    first.session.close()
    assert sorted(second.session.unowned(NAMES)) == sorted(first.names())

    def owns_all() -> bool:
        second.share()
        return second.names() == set(NAMES)

    wait_until(owns_all, 10, "the session has ended, and its locks with it")
    assert second.session.unowned(NAMES) == []


def test_the_locks_of_a_session_are_those_of_its_slots(db, one):
    [(locks,)] = db.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchall()
    assert locks == len({slot_of(name, "") for name in NAMES})
    db.execute("select tide.relay_delete(name) from tide.pipeline")
    one.discover()
    one.share()
    assert len(one.owned) == 0
    assert db.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)


def test_a_pipeline_that_names_another_group_is_released_and_not_taken_back(db, one):
    config = '{"sink_type": "memory", "relay_group_id": "blue"}'
    db.execute("select tide.relay_set_outbox(%s, 'orders', %s::jsonb)", [NAMES[0], config])
    db.execute("update tide.drain set owner = gen_random_uuid() where pipeline = %s", [NAMES[0]])
    for _ in range(len(NAMES)):
        one.owned.act()
    assert NAMES[0] not in one.owned, "another one has it"
    one.share()
    assert NAMES[0] not in one.owned, "though it does not know why yet"
    one.discover()
    one.share()
    assert NAMES[0] not in one.owned


def test_a_pipeline_that_lies_in_another_slot_now_is_released_until_the_lock_of_that_is_taken(db, one):
    config = '{"sink_type": "memory", "relay_group_id": "default"}'
    db.execute("select tide.relay_set_outbox(%s, 'orders', %s::jsonb)", [NAMES[0], config])
    one.discover()
    assert NAMES[0] not in one.owned and one.session.unowned(NAMES) == [NAMES[0]]
    one.share()  # lets go of the slot that is empty now
    one.share()
    assert NAMES[0] in one.owned and one.session.unowned(NAMES) == []
