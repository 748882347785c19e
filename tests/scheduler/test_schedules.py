"""Schedules are fired by the owners of their queues: once, however many believe that they are the owner."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import psycopg
import pytest

from relay.jobs import job
from relay.jobs.errors import BadOptions
from relay.jobs.registry import own_handlers
from relay.jobs.schedules import declare_schedules
from relay.settings import Settings
from scheduler.schedules import Schedules
from scheduler.session import Session
from tests.services.postgres import Database

SCHEDULERS = 4


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect() as owner:
        owner.execute("select tide.job_queue_create('mail')")
        yield owner


@pytest.fixture
def schedulers(database: Database, owner: psycopg.Connection) -> Iterator[list[Schedules]]:
    """Some that all believe that they own the queue."""
    with ExitStack() as stack:
        settings = Settings(postgres_url=database.url)
        yield [Schedules(stack.enter_context(Session(settings))) for _ in range(SCHEDULERS)]


def jobs(owner: psycopg.Connection) -> list[str]:
    found = owner.execute("select metadata ->> 'schedule' from tide.job order by id").fetchall()
    return [name for (name,) in found]


def make_due(owner: psycopg.Connection, ago: str = "30 seconds") -> None:
    owner.execute("update tide.job_schedule set next_at = clock_timestamp() - %s::interval", [ago])


def test_each_time_is_fired_once_by_schedulers_that_race(owner, schedulers):
    names = [f"s{number}" for number in range(5)]
    for name in names:
        owner.execute("select tide.job_schedule_set(%s, 'mail', '0 0 1 1 *', 'send')", [name])
    list(schedulers[0].fire(["mail"]))
    assert jobs(owner) == []  # each has its first time now
    barrier = Barrier(SCHEDULERS)

    def race(one: Schedules) -> None:
        barrier.wait(20)
        list(one.fire(["mail"]))

    rounds = 10
    with ThreadPoolExecutor(SCHEDULERS) as threads:
        for _ in range(rounds):
            make_due(owner)
            list(threads.map(race, schedulers))
    assert sorted(jobs(owner)) == sorted(names * rounds)
    assert owner.execute("select count(*) from tide.job_schedule where next_at <= now()").fetchone() == (0,)


def test_what_was_missed_is_made_up_as_the_schedule_says(owner, schedulers):
    for missed in ("one", "all", "skip"):
        owner.execute("select tide.job_schedule_set(%s, 'mail', '* * * * *', 'send', missed => %s)", [missed, missed])
    # A scheduler was away for more than ten minutes, and the last tick is on time.
    owner.execute(
        "update tide.job_schedule set next_at = date_trunc('minute', clock_timestamp()) - interval '10 minutes'"
    )
    list(schedulers[0].fire(["mail"]))
    found = jobs(owner)
    assert (found.count("one"), found.count("skip")) == (1, 1)
    assert found.count("all") in (11, 12)  # a minute may have ended meanwhile


def test_one_that_cannot_be_read_is_named_and_the_others_go_on(owner, schedulers):
    owner.execute("select tide.job_schedule_set('bad', 'mail', '61 * * * *', 'send')")
    owner.execute("select tide.job_schedule_set('nowhere', 'mail', '@daily', 'send', time_zone => 'Mars/Base')")
    owner.execute("select tide.job_schedule_set('good', 'mail', '@daily', 'send')")
    list(schedulers[0].fire(["mail"]))
    rows = dict(owner.execute("select schedule, coalesce(invalid_reason, next_at::text) from tide.job_schedule_list()"))
    assert "is not a cron expression: bad minute" in rows["bad"]
    assert "time zone 'Mars/Base' is not known" in rows["nowhere"]
    make_due(owner)
    list(schedulers[0].fire(["mail"]))
    assert jobs(owner) == ["good"]


def test_what_the_queue_refuses_stays_due(owner, schedulers):
    owner.execute("select tide.job_schedule_set('s', 'mail', '@daily', 'send')")
    list(schedulers[0].fire(["mail"]))
    make_due(owner)
    owner.execute("update tide.outbox set enabled = false")
    list(schedulers[0].fire(["mail"]))
    owner.execute("update tide.outbox set enabled = true")
    assert jobs(owner) == []
    list(schedulers[0].fire(["mail"]))
    assert jobs(owner) == ["s"]


def test_a_scheduler_fires_for_its_own_queues_alone(owner, schedulers):
    owner.execute("select tide.job_schedule_set('s', 'mail', '@daily', 'send')")
    list(schedulers[0].fire(["other"]))
    list(schedulers[0].fire([]))
    assert owner.execute("select next_at from tide.job_schedule").fetchone() == (None,)


def test_handlers_declare_their_schedules(owner, schedulers):
    with own_handlers():

        @job(queue="mail", cron="30 6 * * MON-FRI", time_zone="Europe/Berlin", missed="all", priority=4, timeout=90)
        def digest(limit: int = 10) -> None: ...

        @job(queue="mail")
        def other() -> None: ...

        @job(queue="mail", cron="@daily")
        def needs(order_id: int) -> None: ...

        assert declare_schedules(owner, [digest, other]) == ["digest"]
        assert declare_schedules(owner, [digest, other]) == []
        with pytest.raises(BadOptions, match="job 'needs' has a cron expression, so it must need no arguments"):
            declare_schedules(owner, [digest, needs])
        with pytest.raises(BadOptions, match="job 'bad': cron: '1 2 3' is not a cron expression"):
            job(name="bad", cron="1 2 3")(lambda: None)
    list(schedulers[0].fire(["mail"]))
    make_due(owner)
    list(schedulers[0].fire(["mail"]))
    row = owner.execute("select name, priority, timeout_seconds, payload from tide.job").fetchone()
    assert row == ("digest", 4, 90, {})
    row = owner.execute("select cron, time_zone, missed from tide.job_schedule_list()").fetchone()
    assert row == ("30 6 * * MON-FRI", "Europe/Berlin", "all")
