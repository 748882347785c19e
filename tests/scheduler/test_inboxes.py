"""Schedulers measure the dead messages of all inboxes, some at a time; no lock and no lost right holds them up."""

from collections.abc import Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from relay.process.metrics.scheduler import SchedulerMetrics
from relay.settings import Settings
from scheduler import inboxes
from scheduler.inboxes import Inboxes
from scheduler.session import Session
from tests.services.postgres import Database
from tests.sql.inbox.inboxes import call, fill
from tests.sql.security.logins import logins


@pytest.fixture
def owner(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """Inboxes a to e; the one of each name has as many dead messages as its place says."""
    monkeypatch.setattr(inboxes, "INBOXES", 2)
    with database.connect() as owner:
        for number, name in enumerate("abcde"):
            call(owner, "tide.inbox_create(%s)", name)
            fill(owner, *map(str, range(number)), inbox=name, retry_count=3)
        yield owner


def measured(registry: CollectorRegistry) -> dict[str, float]:
    [metric] = [found for found in registry.collect() if found.name == "tide_relay_inbox_dead_messages"]
    return {sample.labels["inbox"]: sample.value for sample in metric.samples}


def test_all_inboxes_are_measured_page_by_page_and_those_that_are_gone_forgotten(
    database: Database, owner: psycopg.Connection
) -> None:
    registry = CollectorRegistry()
    with Session(Settings(postgres_url=database.url)) as session:
        one = Inboxes(session, SchedulerMetrics(registry))
        one.measure()
        assert measured(registry) == {"a": 0, "b": 1}
        one.measure()
        one.measure()
        assert measured(registry) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
        call(owner, "tide.inbox_drop('b')")
        fill(owner, "new", inbox="a", retry_count=3)
        with database.connect(autocommit=False) as busy:
            busy.execute("lock table tide.e in access exclusive mode")
            for _ in range(3):
                one.measure()
        assert measured(registry) == {"a": 1, "c": 2, "d": 3, "e": 4}, "what is locked keeps its number"
        one.forget()
        assert measured(registry) == {}


def test_a_right_that_is_missing_stops_nothing_else(database: Database, owner: psycopg.Connection) -> None:
    registry = CollectorRegistry()
    with logins(database) as make:
        name, url = make("grant_relay")
        owner.execute(f"revoke execute on function tide.inbox_dead_numbers from {name}")
        with Session(Settings(postgres_url=url)) as session:
            Inboxes(session, SchedulerMetrics(registry)).measure()
            assert session.schedulers_alive() == 1
    assert measured(registry) == {}
