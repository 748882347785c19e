"""What an engine asks PostgreSQL in a trip."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay.jobs.models import Claimed
from relay.models import Drain
from relay.settings import Settings
from tests.services.postgres import Database
from tests.sql.jobs.jobs import Worker, enqueue, one, uuid_of
from workers.jobs import store
from workers.jobs.queues import Queue
from workers.jobs.run import SUCCEEDED
from workers.jobs.store import Done, Store, Visit


async def results_of_a_trip(database: Database, worker: int, visits: Sequence[Visit]) -> dict[int, str | None]:
    made = Store(Settings(postgres_url=database.url), lambda _: None)
    try:
        trip = await made.trip(worker, [], [], [], visits)
    finally:
        await made.close()
    return {job.id: job.results for seen in trip.seen for job in seen.jobs}


async def renewals(database: Database, *drains: Drain) -> list[int | None]:
    made = Store(Settings(postgres_url=database.url), lambda _: None)
    try:
        return [await made.renew(drain) for drain in drains]
    finally:
        await made.close()


def test_a_renewal_reads_the_revision_of_the_pipeline(database: Database) -> None:
    ours, abandoned = Drain("jobs.mail", 3, 2, 5000), Drain("jobs.mail", 3, 1, 5000)
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        session.execute("update tide.drain set epoch = 3, number = 2")
        before = asyncio.run(renewals(database, ours, abandoned))
        assert before == [one(session, "select revision from tide.pipeline"), None]
        assert one(session, "select lease_until > clock_timestamp() from tide.drain")
        session.execute("select tide.job_queue_pause('mail')")
        assert (
            asyncio.run(renewals(database, ours)) == [one(session, "select revision from tide.pipeline")] != before[:1]
        )


def test_only_for_jobs_of_handlers_that_have_waited_it_asks_what_others_returned(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    query = store.query

    def asking(name: str) -> Any:
        asked.append(name)
        return query(name)

    monkeypatch.setattr(store, "query", asking)
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        worker = Worker(session)
        queue = Queue("mail", one(session, "select outbox_id from tide.job_queue"), 1, "jobs.mail")
        needed = uuid_of(session, enqueue(session))
        worker.run()
        many: Any = {"after": [needed]}
        enqueue(session)
        enqueue(session, options=Jsonb({"backoff": 3, "follows": 'x "after": [1]'}))
        enqueue(session, {"url": "https://shop.example"}, kind="http", options=Jsonb(many))
        for looks in (False, True):
            found = asyncio.run(results_of_a_trip(database, worker.number, [Visit(queue, 10, looks)]))
            assert "engine_results" not in asked and set(found.values()) <= {None}
        waited = enqueue(session, options=Jsonb(many))
        for looks in (False, True):
            found = asyncio.run(results_of_a_trip(database, worker.number, [Visit(queue, 10, looks)]))
            assert found == {waited: f'{{"{needed}": null}}'}
            assert asked.count("engine_results") == 1
            asked.clear()
            session.execute("select tide.job_release(%s)", [worker.number])
            worker.run(3)  # the others: it is claimed again


WATCH = """
create table public.commits (what text, durability text);
create function public.note() returns trigger language plpgsql as
$$ begin insert into public.commits values (tg_argv[0], current_setting('synchronous_commit')); return null; end $$;
create constraint trigger note after insert on tide.job_lease deferrable initially deferred
    for each row execute function public.note('claim');
create constraint trigger note after insert on tide.job_attempt_{outbox} deferrable initially deferred
    for each row execute function public.note('end')
"""
"""What a transaction is as it commits."""


def test_a_claim_alone_does_not_wait_for_the_disk_and_with_an_end_it_does(database: Database) -> None:
    async def trips(worker: int, visit: Visit) -> None:
        made = Store(Settings(postgres_url=database.url), lambda _: None)
        try:
            first = await made.trip(worker, [], [], [], [visit])
            done = [Done(job, visit.queue, 1, SUCCEEDED) for job in _jobs(first.seen)]
            await made.trip(worker, done, [], [], [visit])
        finally:
            await made.close()

    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        outbox = one(session, "select outbox_id from tide.job_queue")
        session.execute(WATCH.format(outbox=outbox))
        worker = Worker(session)
        for _ in range(2):
            enqueue(session)
        asyncio.run(trips(worker.number, Visit(Queue("mail", outbox, 1, "jobs.mail"), 1, looks=False)))
        found = session.execute("select * from commits").fetchall()
    assert found == [("claim", "off"), ("end", "on"), ("claim", "on")]


def _jobs(seen: Sequence[Any]) -> list[Claimed]:
    return [job for each in seen for job in each.jobs]
