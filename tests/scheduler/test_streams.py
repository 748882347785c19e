"""Schedulers measure how stale stream tables are; neither a long rest of a source nor a lost right misleads them."""

from collections.abc import Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from relay.process.metrics.scheduler import SchedulerMetrics
from relay.settings import Settings
from scheduler import streams
from scheduler.session import Session
from scheduler.streams import Streams
from tests.services.postgres import Database
from tests.sql.security.logins import logins
from tests.sql.streams.streams import create, refresh


@pytest.fixture
def owner(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    monkeypatch.setattr(streams, "STREAMS", 2)
    with database.connect() as owner:
        owner.execute("create table sales (n int)")
        for name, schedule in (("a", "5s"), ("b", "@daily"), ("c", "5s")):
            create(owner, name, "select n from sales", schedule=schedule)
            refresh(owner, name)
        yield owner


def long_ago(owner: psycopg.Connection) -> None:
    """As if the last refreshes, and those before, had been two days and an hour ago."""
    owner.execute("update tide.stream_state set data_timestamp = data_timestamp - interval '49 hours'")


def measured(registry: CollectorRegistry, what: str) -> dict[str, float]:
    [metric] = [found for found in registry.collect() if found.name == f"tide_stream_{what}"]
    return {sample.labels["stream_table"]: sample.value for sample in metric.samples}


def test_staleness_counts_from_the_change_that_is_missing(database: Database, owner: psycopg.Connection) -> None:
    registry = CollectorRegistry()
    with Session(Settings(postgres_url=database.url)) as session:
        one = Streams(session, SchedulerMetrics(registry))
        list(one.measure())
        assert measured(registry, "staleness_seconds") == dict.fromkeys(("public.a", "public.b", "public.c"), 0)
        long_ago(owner)
        owner.execute("insert into sales values (1)")
        list(one.measure())
        assert 0 < measured(registry, "staleness_seconds")["public.a"] < 3600, "it was equal to its query a moment ago"
        other = CollectorRegistry()
        list(Streams(session, SchedulerMetrics(other)).measure())
        assert measured(other, "staleness_seconds")["public.a"] > 48 * 3600, "one that has just started cannot know"
        overdue = measured(other, "overdue_seconds")
        assert 49 * 3600 - 10 < overdue["public.a"] < 49 * 3600
        assert 24 * 3600 < overdue["public.b"] < 49 * 3600, "since the first midnight that it missed"


def test_failures_are_told_of_suspended_ones_too_and_what_is_gone_is_forgotten(
    database: Database, owner: psycopg.Connection
) -> None:
    registry = CollectorRegistry()
    with Session(Settings(postgres_url=database.url)) as session:
        one = Streams(session, SchedulerMetrics(registry))
        for _ in range(3):
            owner.execute("select tide.stream_failed('streams.public.c', 'no')")
        owner.execute("select tide.pause_stream_table('b'); insert into sales values (1)")
        long_ago(owner)
        list(one.measure())
        assert measured(registry, "failures") == {"public.a": 0, "public.b": 0, "public.c": 3}
        assert measured(registry, "staleness_seconds")["public.b"] == 0, "no one wants it refreshed"
        owner.execute("select tide.drop_stream_table('a')")
        list(one.measure())
        assert set(measured(registry, "failures")) == {"public.b", "public.c"}
        one.forget()
        assert measured(registry, "failures") == measured(registry, "overdue_seconds") == {}


def test_a_right_that_is_missing_stops_nothing_else(database: Database, owner: psycopg.Connection) -> None:
    registry = CollectorRegistry()
    with logins(database) as make:
        name, url = make("grant_relay")
        owner.execute(f"revoke execute on function tide.stream_numbers from {name}")
        with Session(Settings(postgres_url=url)) as session:
            list(Streams(session, SchedulerMetrics(registry)).measure())
            assert session.schedulers_alive() == 1
    assert measured(registry, "failures") == {}
