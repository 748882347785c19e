"""A catalog reads what has changed since it was read last, and misses no change."""

import pytest

from relay.settings import Settings
from scheduler import catalog as catalog_module
from scheduler.catalog import Catalog
from scheduler.session import Session
from tests.scheduler.test_catalog import read, reason


class Counted(Session):
    """Counts the configurations that it reads."""

    read = 0

    def pipelines(self, names):
        rows = super().pipelines(names)
        self.read += len(rows)
        return rows


@pytest.fixture
def session(database):
    with Counted(Settings.load(postgres_url=database.url)) as session:
        yield session


def test_only_configurations_that_changed_are_read_and_those_in_pieces(session, make, database, monkeypatch):
    monkeypatch.setattr(catalog_module, "CONFIGURATIONS", 2)
    names = [f"p{number}" for number in range(12)]
    for name in names:
        make(name)
    catalog = Catalog("default")
    assert read(catalog, session) > 6
    assert sorted(catalog.specs) == sorted(names) and catalog.take_changed() == set(names)
    assert (read(catalog, session), session.read) == (0, 12)
    make("p3", poll_interval_ms=500)
    with database.connect() as connection:
        connection.execute("select tide.relay_delete('p4')")
        connection.execute("select tide.relay_disable('p5')")
    read(catalog, session)
    assert session.read == 12 + 2
    assert catalog.take_changed() == {"p3", "p4", "p5"}
    assert catalog.specs.keys() == set(names) - {"p4", "p5"} and catalog.specs["p3"].poll_seconds == 0.5
    assert read(catalog, session) == 0


@pytest.fixture
def names(database):
    """Of one bucket."""
    with database.connect() as connection:
        same = "select 'p' || n from generate_series(1, 5000) n where hashtext('p' || n) & 255 = 7 order by n limit 3"
        return [row[0] for row in connection.execute(same)]


def test_of_those_that_share_a_bucket_only_the_one_that_changed_is_read(session, make, names):
    for name in names:
        make(name)
    catalog = Catalog("default")
    read(catalog, session)
    make(names[1], poll_interval_ms=500)
    read(catalog, session)
    assert session.read == 3 + 1
    assert catalog.take_changed() == set(names) and [catalog.specs[name].poll_seconds for name in names] == [
        1.0,
        0.5,
        1.0,
    ]


def test_a_change_of_a_slow_transaction_is_seen_though_later_ones_were_seen_before(session, make, database):
    make("early")
    catalog = Catalog("default")
    with database.connect(autocommit=False) as slow:
        slow.execute("select tide.relay_set_outbox('slow', 'orders', '{\"sink_type\": \"memory\"}')")
        make("late")
        read(catalog, session)
        assert sorted(catalog.specs) == ["early", "late"]
        slow.commit()
    read(catalog, session)
    assert sorted(catalog.specs) == ["early", "late", "slow"]


def test_a_change_of_a_slow_transaction_is_seen_though_a_later_one_of_its_bucket_was(session, make, names, database):
    for name in names:
        make(name)
    catalog = Catalog("default")
    with database.connect(autocommit=False) as slow:
        config = '{"sink_type": "memory", "poll_interval_ms": 500}'
        slow.execute("select tide.relay_set_outbox(%s, 'orders', %s)", [names[0], config])
        make(names[1], poll_interval_ms=250)
        read(catalog, session)
        slow.commit()
    read(catalog, session)
    assert [catalog.specs[name].poll_seconds for name in names] == [0.5, 0.25, 1.0]


def test_a_verdict_that_another_scheduler_wrote_is_seen_though_nothing_else_changed(session, make, database):
    make("a")
    catalog = Catalog("default")
    read(catalog, session)
    with database.connect() as connection:
        connection.execute("update tide.pipeline set invalid_reason = 'an older version does not know it'")
    read(catalog, session)
    assert reason(database, "a") is None


def test_what_is_created_while_it_reads_is_read_the_next_time(session, make, monkeypatch):
    monkeypatch.setattr(catalog_module, "BUCKETS", 1)
    for name in "abcdef":
        make(name)
    catalog = Catalog("default")
    for number, _ in enumerate(catalog.read(session)):
        make(f"new{number}")
    created = {f"new{number}" for number in range(number + 1)}
    read(catalog, session)
    assert catalog.specs.keys() == {*"abcdef", *created}


def test_what_changes_in_a_bucket_while_that_is_read_is_read_the_next_time(session, make, names):
    make(names[0])
    catalog = Catalog("default")
    reading = catalog.read(session)
    next(reading)  # it knows which there are
    make(names[1])
    make(names[0], poll_interval_ms=500)
    next(reading)
    make(names[0], poll_interval_ms=250)
    list(reading)
    read(catalog, session)
    assert sorted(catalog.specs) == names[:2] and catalog.specs[names[0]].poll_seconds == 0.25
