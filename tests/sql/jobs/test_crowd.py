"""Everything at once: who enqueues, claims, retries, dies, cancels, rescues, removes what is old and changes the queue.
Every job is counted by its id: what the database has written of it, and what those who work on it have seen."""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.outbox.crowd import at_once
from tests.waiting import wait_until

LIMIT, KEY_LIMIT = 40, 2
SECONDS = 3.0

# Retention removes jobs and attempts meanwhile: this is kept.
RECORD = """
create table public.born (id bigint);
create table public.fate (id bigint, outcome "char");
create function public.record_birth() returns trigger language plpgsql as
$$ begin insert into public.born values (new.id); return null; end $$;
create function public.record_end() returns trigger language plpgsql as
$$ begin insert into public.fate values (new.id, new.outcome); return null; end $$;
create function public.record_last() returns trigger language plpgsql as
$$ begin insert into public.fate values (new.id, 'l'); return null; end $$;
create trigger birth after insert on tide.job for each row execute function public.record_birth();
create trigger ending after insert on tide.job_attempt for each row when (new.outcome in ('s', 'd', 'c'))
    execute function public.record_end();
create trigger last after insert on tide.job_dead for each row when (new.code = 'lease_expired')
    execute function public.record_last();
"""


class Crowd:
    """What is known of each job, by those who work on them."""

    def __init__(self, database: Database, seed: int = 0) -> None:
        self.database = database
        self.seed = seed
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.enqueued: list[int] = []
        self.keys: dict[int, str] = {}
        self.running: dict[int, int] = {}
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()

    def chance(self, number: int) -> random.Random:
        return random.Random(1000 * self.seed + number)

    def begin(self, worker: Worker, claimed: list[Any]) -> None:
        with self.lock:
            for _, job, _ in claimed:
                if job in self.running:
                    self.faults.append(f"job {job} runs twice")
                if job in self.ended or job in self.cancelled:
                    self.faults.append(f"job {job} runs after its end")
                self.running[job] = worker.number
            if len(self.running) > LIMIT:
                self.faults.append(f"{len(self.running)} jobs run")
            of_keys = Counter(self.keys[job] for job in self.running if job in self.keys)
            self.faults += [f"{n} jobs of key {key} run" for key, n in of_keys.items() if n > KEY_LIMIT]

    def end(self, claimed: list[Any], outcome: str = "") -> None:
        """Before the database says so: from then on others may have them."""
        with self.lock:
            for _, job, _ in claimed:
                del self.running[job]
                if outcome in ("s", "d"):
                    self.ended.add(job)

    def enqueues(self, number: int, until: Callable[[], bool]) -> None:
        chance = self.chance(number)
        with self.database.connect(autocommit=False) as session:
            while not (until() or self.stop.wait(chance.random() * 0.01)):
                if one(
                    session,
                    "select tide.outbox_last_id(outbox_id) - tide.job_lowest(outbox_id) > 500 from tide.job_queue",
                ):
                    session.rollback()
                    continue
                mine: list[tuple[int, str | None]] = []
                for _ in range(chance.randint(1, 5)):
                    options: dict[str, Any] = {"priority": chance.choice([0, 0, 0, 5, -3])}
                    if chance.random() < 0.15:
                        options["run_key"] = f"key {chance.randint(1, 4)}"
                    if chance.random() < 0.1:
                        options["available_at"] = one(session, "select clock_timestamp() + interval '200 ms'")
                    options |= self._follows(session, chance, [job for job, _ in mine])
                    session.execute("savepoint s")
                    try:
                        job = enqueue(session, **options)
                    except psycopg.errors.UndefinedObject:  # What it needs has ended and is removed.
                        session.execute("rollback to s")
                        continue
                    if chance.random() < 0.1:
                        session.execute("rollback to s")
                        continue
                    mine.append((job, options.get("run_key")))
                if (
                    chance.random() < 0.3
                ):  # One key in a transaction, the last: so they do not wait for each other in a ring.
                    unique: dict[str, Any] = {"debounce": timedelta(seconds=0.05)}
                    if chance.random() < 0.5:
                        unique = {"dedupe": chance.choice(["waiting", "unfinished"])}
                    mine.append((enqueue(session, dedupe_key=f"{min(unique)} {chance.randint(1, 3)}", **unique), None))
                if chance.random() < 0.1:
                    session.rollback()
                    continue
                with self.lock:  # Known before anyone can claim it.
                    self.keys.update((job, key) for job, key in mine if key)
                session.commit()
                with self.lock:
                    self.enqueued += [job for job, _ in mine]

    def _follows(self, session: Session, chance: random.Random, mine: list[int]) -> dict[str, Any]:
        what = chance.random()
        needed = mine + self.enqueued[-20:]
        if what < 0.04:
            return {"options": Jsonb({"then": {"name": "next", "priority": 5}})}
        if what < 0.1 and needed:
            after = [uuid_of(session, job) for job in {chance.choice(needed) for _ in range(2)}]
            return {"options": Jsonb({"after": after, "run_if": chance.choice(["succeeded", "ended"])})}
        return {}

    def stays_open(self, until: Callable[[], bool]) -> None:
        """One transaction that enqueues all the time."""
        with self.database.connect(autocommit=False) as session:
            while not (until() or self.stop.wait(0.02)):
                enqueue(session)
                enqueue(session, priority=5)
            session.commit()

    def replays(self, until: Callable[[], bool]) -> None:
        """It makes jobs too, so it ends with those who enqueue: nothing is born once every job has ended."""
        with self.database.connect() as session:
            while not (until() or self.stop.wait(0.1)):
                session.execute("select tide.job_replay_many('mail', max_jobs => 2)")

    def works(self, number: int) -> None:
        chance = self.chance(100 + number)
        with self.database.connect() as session:
            worker = Worker(session)
            claimed: list[Any] = []
            while claimed or not self.stop.is_set():
                what = chance.random()
                if what < 0.02:
                    self._dies(session, worker, claimed)
                    worker, claimed = Worker(session), []
                elif what < 0.05:
                    self.end(claimed)
                    one(session, "select tide.job_release(%s)", worker.number)
                    claimed = []
                while len(claimed) > 10:
                    self._ends(worker, [claimed.pop() for _ in range(chance.randint(1, 10))], chance)
                # As the engine does: it ends jobs and claims others in one transaction.
                with session.transaction() if chance.random() < 0.5 else contextlib.nullcontext():
                    self._ends(worker, claimed, chance)
                    claimed = [] if self.stop.is_set() else worker.claim(chance.randint(1, 30))
                self.begin(worker, claimed)

    def _ends(self, worker: Worker, part: list[Any], chance: random.Random) -> None:
        outcome = chance.choices("srdb", [80, 12, 3, 5])[0]
        self.end(part, outcome)
        if part and worker.finish(part, outcome, "failed" if outcome == "d" else None, 0.02):
            self.faults.append(f"{part} of a living worker were not its own")

    def _dies(self, session: Session, worker: Worker, claimed: list[Any]) -> None:
        self.end(claimed)
        session.execute("update tide.job_worker set seen_at = '-infinity' where worker_id = %s", [worker.number])
        held = "select count(*) from tide.job_lease where worker_id = %s"
        wait_until(lambda: one(session, held, worker.number) == 0, what="it is rescued")
        if claimed:
            # It thaws, and says that all went well.
            self.done["refused"] += len(claimed)
            if worker.finish(claimed) != len(claimed):
                self.faults.append(f"some of {claimed} were taken from a worker that was taken for dead")

    def rescues(self) -> None:
        with self.database.connect() as session:
            while not self.stop.wait(0.05):
                self.done["rescued"] += one(session, "select tide.job_rescue(20)")

    def cancels(self) -> None:
        chance = self.chance(7)
        with self.database.connect() as session:
            while not self.stop.wait(0.01):
                with self.lock:
                    job = chance.choice(self.enqueued[-50:] or [0])
                # It has ended, or is removed, or its lease is in use for long.
                with contextlib.suppress(
                    psycopg.errors.ObjectNotInPrerequisiteState,
                    psycopg.errors.UndefinedObject,
                    psycopg.errors.LockNotAvailable,
                ):
                    was = one(session, "select tide.job_cancel(%s)", uuid_of(session, job))
                    self.done[was] += 1
                    if was == "cancelled":
                        with self.lock:
                            self.cancelled.add(job)

    def operates(self) -> None:
        chance = self.chance(8)
        with self.database.connect() as session:
            while not self.stop.wait(0.03):
                what = chance.randint(1, 3)
                if what == 1:
                    settings = {
                        "concurrency_limit": chance.choice([2, 10, LIMIT, LIMIT]),
                        "key_limit": chance.choice([1, KEY_LIMIT]),
                        "rate": chance.choice([None, None, 500, 3000]),
                        "fair": chance.random() < 0.5,
                    }
                    session.execute("select tide.job_queue_set('mail', %s)", [Jsonb(settings)])
                elif what == 2:
                    session.execute("select tide.job_queue_pause('mail')")
                    self.stop.wait(0.01)
                    session.execute("select tide.job_queue_resume('mail')")
                else:
                    with contextlib.suppress(
                        psycopg.errors.LockNotAvailable
                    ):  # Then the next time, as the scheduler does.
                        session.execute("select tide.outbox_extend('jobs/mail')")
                    self.done["removed"] += one(session, "select truncated from tide.outbox_retain('jobs/mail')")


def test_each_job_ends_once_whatever_everyone_does(database: Database) -> None:
    everyone_does(Crowd(database), SECONDS)


def everyone_does(crowd: Crowd, seconds: float) -> None:
    with crowd.database.connect() as session:
        session.execute(
            "select tide.job_queue_create('mail', concurrency_limit => %s, key_limit => %s, partition_size => 1000,"
            " retention_hours => 0)",
            [LIMIT, KEY_LIMIT],
        )
        session.execute(RECORD)
        began = time.monotonic()
        wanted = {"refused", "rescued", "cancelled", "leased", "removed"}

        def enough() -> bool:
            done = {what for what, n in crowd.done.items() if n}
            return time.monotonic() > began + (seconds if wanted <= done else 10 * seconds)

        makers = [threading.Thread(target=crowd.enqueues, args=(number, enough)) for number in range(4)]
        makers.append(threading.Thread(target=crowd.replays, args=(enough,)))
        makers.append(threading.Thread(target=crowd.stays_open, args=(lambda: time.monotonic() > began + seconds,)))
        for maker in makers:
            maker.start()
        others: list[Callable[[], None]] = [crowd.rescues, crowd.cancels, crowd.operates]
        others += [partial(crowd.works, number) for number in range(3)]
        # No one waits for the pause after a death.
        at_last = (
            "update tide.job_wait set available_at = now() where id in (select id from tide.job_wait"
            " where needs = 0 and available_at > now() + interval '0.5 s' order by id for update skip locked)"
        )
        nothing_left = (
            "select tide.job_lowest(outbox_id) is null and not exists (select from tide.job_wait) from tide.job_queue"
        )

        def all_ended() -> bool:
            session.execute(at_last)
            return bool(one(session, nothing_left))

        with at_once(crowd.stop, others):
            for maker in makers:
                maker.join()
            wait_until(all_ended, 60, "every job has ended")
        born = session.execute("select id from public.born").fetchall()
        fates = session.execute("select id, outcome from public.fate").fetchall()
        assert crowd.faults == []
        assert Counter(job for job, _ in fates) == Counter(job for (job,) in born)
        assert set(crowd.enqueued) <= {job for (job,) in born}
        assert crowd.ended <= {job for job, outcome in fates if outcome in ("s", "d")}
        assert crowd.cancelled <= {job for job, outcome in fates if outcome == "c"}
        assert wanted <= {what for what, n in crowd.done.items() if n}
        for table in ("job_lease", "job_wait", "job_running", "job_skip", "job_follow", "job_dependency"):
            assert one(session, f"select count(*) from tide.{table}") == 0, table
        lane = "select isempty(gaps) and isempty(old_gaps), count(*) over () from tide.job_lane where priority = 0"
        assert session.execute(lane).fetchall() == [(True, 1)]


def test_a_claim_that_must_not_wait_for_its_turn_is_refused(database: Database) -> None:
    """Its snapshot would be from before the claim that it waited for."""
    with database.connect() as session, database.connect(autocommit=False) as other:
        session.execute("select tide.job_queue_create('mail')")
        worker = Worker(session)
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.ActiveSqlTransaction, match="repeatable read"):
            other.execute("select tide.job_claim(outbox_id, %s, 1) from tide.job_queue", [worker.number])
