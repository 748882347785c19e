"""Partitions are made ahead of need, and an outbox that does not move is not asked but in its turn."""

from collections.abc import Iterator

import pytest

from relay.settings import Settings
from scheduler import partitions as partitions_module
from scheduler.partitions import Partitions
from scheduler.session import Session
from tests.sql.support import publish_many
from tests.waiting import wait_until

NAMES = [f"o{number}" for number in range(7)]


class Counted(Session):
    """Counts its statements, and the outboxes that it asks about."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.statements: list[str] = []
        self.asked = 0

    def _run(self, statement, /, **parameters):
        rows = super()._run(statement, **parameters)
        if hasattr(self, "statements"):
            self.statements.append(statement)
            self.asked += rows[0].outboxes if statement == "outbox_page" else len(parameters.get("names", ()))
        return rows


@pytest.fixture
def db(database):
    with database.connect() as connection:
        for name in NAMES:
            connection.execute("select tide.outbox_create(%s, partition_size => 1000)", [name])
        yield connection


@pytest.fixture
def session(db, database) -> Iterator[Counted]:
    with Counted(Settings.load(postgres_url=database.url)) as session:
        yield session


@pytest.fixture
def made(session, monkeypatch) -> Partitions:
    """Just after a round over all."""
    monkeypatch.setattr(partitions_module, "OUTBOXES", 3)
    monkeypatch.setattr(partitions_module, "ROUND_SECONDS", 3600.0)
    made = Partitions(session)
    while not session.statements or made._after:
        look(made)
    session.statements.clear()
    session.asked = 0
    return made


def look(made: Partitions) -> int:
    """How many pieces the look had."""
    return sum(1 for _ in made.look())


def upper(db, name: str) -> int:
    [(end,)] = db.execute("select partitions_end from tide.outbox where name = %s", [name]).fetchall()
    return end


def test_a_look_asks_a_page_and_a_round_asks_everything_once(session, monkeypatch):
    monkeypatch.setattr(partitions_module, "OUTBOXES", 3)
    made = Partitions(session)
    for asked in (3, 6, 7, 7, 7):
        look(made)
        assert session.asked == asked
    assert session.statements == ["outbox_page"] * 3, "and then nothing, until the next round"


def test_only_an_outbox_that_moved_is_asked_and_extended(session, db, made):
    publish_many(db, 1200, outbox="o4")
    look(made)
    assert session.statements == [], "no one has said that it moved"
    made.moved(["o4", "o5"])
    look(made)
    assert session.statements == ["outboxes_needing", "outbox_extend"]
    assert session.asked == 2
    assert upper(db, "o4") == 3000 and upper(db, "o5") == 2000
    look(made)
    assert len(session.statements) == 2


def test_an_outbox_that_moved_unheard_is_found_by_the_round(session, db, monkeypatch):
    publish_many(db, 1200, outbox="o6")
    made = Partitions(session)
    look(made)
    assert upper(db, "o6") == 3000


def test_extensions_come_a_few_at_a_time_and_each_is_a_piece(session, db, made, monkeypatch):
    monkeypatch.setattr(partitions_module, "EXTENSIONS", 2)
    for name in NAMES:
        publish_many(db, 1200, outbox=name)
    made.moved(NAMES)
    assert look(made) == 3 + 2, "three pages of questions, and two extensions"
    assert session.statements.count("outbox_extend") == 2
    for _ in range(3):
        look(made)
    assert [upper(db, name) for name in NAMES] == [3000] * 7


def test_one_that_a_publisher_keeps_from_it_does_not_keep_the_others(session, db, made, database, monkeypatch):
    monkeypatch.setattr(partitions_module, "MOVED_SECONDS", 0.0)
    for name in ("o1", "o2"):
        publish_many(db, 1200, outbox=name)
    with database.connect(autocommit=False) as publisher:
        publisher.execute("lock table tide.message_2_rest in row exclusive mode")
        made.moved(["o1", "o2"])
        look(made)
        assert (upper(db, "o1"), upper(db, "o2")) == (2000, 3000)
    look(made)
    assert upper(db, "o1") == 3000, "it is retried, though it did not move"


def test_one_that_was_dropped_meanwhile_is_passed_over(session, db, made):
    publish_many(db, 1200, outbox="o1")
    assert session.outboxes_needing(["o1"]) == ["o1"]
    db.execute("select tide.outbox_drop('o1')")
    session.extend_outbox("o1")
    made.moved(["o1"])
    look(made)


def test_an_outbox_without_pipelines_gets_its_partitions_from_a_running_scheduler(fleet, db, database):
    fleet.scheduler()
    publish_many(db, 1200, outbox="o3")
    wait_until(lambda: upper(db, "o3") == 3000, 20, "its next partition is there")
