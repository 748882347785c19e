"""Which pipelines need no first drain: nothing that was published before or meanwhile may be passed over."""

from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from relay.drains import fence, lease
from relay.drains.lease import DrainResult
from relay.models import Drain
from relay.process.metrics.scheduler import SchedulerMetrics
from relay.settings import Settings
from scheduler import ownership as ownership_module
from scheduler.catalog import Catalog
from scheduler.heard import Heard
from scheduler.ownership import Ownership
from scheduler.session import Session
from tests.scheduler.test_many import Broker
from tests.services.postgres import Database
from tests.sql.support import publish

SETTINGS = '{"sink_type": "memory"}'


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection]:
    """Two pipelines of one outbox, whose last drains found nothing; and a queue, and one that was never drained."""
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders'), tide.job_queue_create('mail')")
        for name in ("a", "b", "new"):
            connection.execute("select tide.relay_set_outbox(%s, 'orders', %s)", [name, SETTINGS])
        for name in ("a", "b", "jobs.mail"):
            drained(database, name)
        yield connection


def drained(database: Database, name: str, result: DrainResult | None = None) -> None:
    """Has its next drain."""
    with database.connect() as connection:
        [(number,)] = connection.execute("select number + 1 from tide.drain where pipeline = %s", [name]).fetchall()
        drain = Drain(name, 0, number, 60_000)
        assert lease.begin(connection, drain)
        fence.end(connection, drain, result or DrainResult("idle"))


@pytest.fixture
def session(db: psycopg.Connection, database: Database) -> Iterator[Session]:
    with Session(Settings.load(postgres_url=database.url)) as session:
        yield session


def asleep(session: Session) -> str:
    return " ".join(sorted(session.asleep(["a", "b", "new", "jobs.mail", "none"])))


def test_one_whose_last_drain_found_nothing_sleeps_and_one_that_had_none_does_not(session):
    assert asleep(session) == "a b"


def test_one_that_has_something_to_deliver_does_not_sleep(session, db):
    publish(db)
    db.execute("update tide.consumer_group set offset_id = 1 where name = 'b'")
    assert asleep(session) == "b"


def test_one_whose_outbox_has_an_open_publisher_does_not_sleep_until_that_has_ended(session, database):
    """It may have seen a bell that was silent, or no scheduler; and its id may be above the last one still."""
    with database.connect(autocommit=False) as publisher:
        publisher.execute("select tide.outbox_mark(outbox_id, mark_class, mark_setting, ids) from tide.outbox")
        assert asleep(session) == ""
        publisher.rollback()
        assert asleep(session) == "a b"


CHANGES: dict[str, str | Callable[[Database], None]] = {
    "its bell is silent": "update tide.bell b set armed = false from tide.pipeline p"
    " where p.group_id = b.group_id and p.name = 'b'",
    "its configuration has changed": "select tide.relay_set_outbox('b', 'orders',"
    """ '{"sink_type": "memory", "batch_size": 7}')""",
    "it was enabled since": "select tide.relay_disable('b'), tide.relay_enable('b')",
    "it was asked for a replay": "insert into tide.replay (pipeline, outbox_id, from_id, to_id, next_id, requested_by)"
    " values ('b', 1, 1, 1, 1, 'me')",
    "its last drain failed": lambda database: drained(database, "b", lease.failed(0, "timeout", "no answer")),
    "its last drain found only open messages": lambda database: drained(database, "b", DrainResult("again")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_does_not_sleep_if(change, session, db, database):
    if callable(change):
        change(database)
    else:
        db.execute(change)
    assert asleep(session) == "a"


@pytest.mark.parametrize("many", [True, False], ids=["where there are many", "where there are few"])
def test_those_that_sleep_have_no_first_drain_and_answer_their_bell(many, session, db, monkeypatch):
    monkeypatch.setattr(ownership_module, "STARTS", 3 if many else 4)
    broker, catalog = Broker(), Catalog("default")
    owned = Ownership(session, broker, SchedulerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    list(catalog.read(session))
    list(owned.follow(catalog.take_changed(), catalog.specs))
    list(owned.share(catalog.specs, 1))
    for _ in range(3):
        owned.act()
    drains = sorted(drain.pipeline for drain in broker.drains)
    assert drains == (["jobs.mail", "new"] if many else ["a", "b", "jobs.mail", "new"])
    if many:
        broker.drains.clear()
        publish(db)
        owned.hear(Heard(rings=Counter(orders=1)))
        owned.act()
        assert sorted(drain.pipeline for drain in broker.drains) == ["a", "b"]
