"""Everything at once: who enqueues, claims, retries, dies, cancels and rescues. Every job is counted by its id."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one
from tests.sql.outbox.crowd import at_once
from tests.waiting import wait_until

LIMIT, KEY_LIMIT = 40, 2
SECONDS = 3.0


class Crowd:
    """What is known of each job, by those who work on them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.enqueued: list[int] = []
        self.keys: dict[int, str] = {}
        self.running: dict[int, int] = {}
        self.ended: Counter[int] = Counter()
        self.cancelled: set[int] = set()
        self.faults: list[str] = []
        self.rescued = 0
        self.refused = 0

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

    def end(self, claimed: list[Any]) -> None:
        """Before the database says so: from then on others may have them."""
        with self.lock:
            for _, job, _ in claimed:
                del self.running[job]

    def enqueues(self, number: int, until: float) -> None:
        chance = random.Random(number)
        with self.database.connect(autocommit=False) as session:
            while time.monotonic() < until and not self.stop.wait(chance.random() * 0.01):
                mine: list[tuple[int, str | None]] = []
                for _ in range(chance.randint(1, 5)):
                    options: dict[str, Any] = {"priority": chance.choice([0, 0, 0, 5, -3])}
                    if chance.random() < 0.15:
                        options["run_key"] = f"key {chance.randint(1, 4)}"
                    if chance.random() < 0.1:
                        options["available_at"] = one(session, "select clock_timestamp() + interval '200 ms'")
                    if chance.random() < 0.2:
                        session.execute("savepoint s")
                        job = enqueue(session, **options)
                        if chance.random() < 0.5:
                            session.execute("rollback to s")
                            continue
                    else:
                        job = enqueue(session, **options)
                    mine.append((job, options.get("run_key")))
                if chance.random() < 0.1:
                    session.rollback()
                    continue
                with self.lock:  # Known before anyone can claim it.
                    self.keys.update((job, key) for job, key in mine if key)
                session.commit()
                with self.lock:
                    self.enqueued += [job for job, _ in mine]

    def stays_open(self, until: float) -> None:
        """One transaction that enqueues all the time."""
        mine = []
        with self.database.connect(autocommit=False) as session:
            while time.monotonic() < until and not self.stop.wait(0.02):
                mine += [enqueue(session), enqueue(session, priority=5)]
            session.commit()
        with self.lock:
            self.enqueued += mine

    def works(self, number: int) -> None:
        chance = random.Random(100 + number)
        with self.database.connect() as session:
            worker = Worker(session)
            while not self.stop.is_set():
                claimed = worker.claim(chance.randint(1, 30))
                self.begin(worker, claimed)
                what = chance.random()
                if what < 0.02:
                    self._dies(session, worker, claimed)
                    worker = Worker(session)
                elif what < 0.05:
                    self.end(claimed)
                    one(session, "select tide.job_release(%s)", worker.number)
                else:
                    self._ends(worker, claimed, chance)

    def _ends(self, worker: Worker, claimed: list[Any], chance: random.Random) -> None:
        while claimed:
            part = [claimed.pop() for _ in range(min(len(claimed), chance.randint(1, 10)))]
            outcome = chance.choices("srdb", [80, 12, 3, 5])[0]
            self.end(part)
            with self.lock:
                if outcome in "sd":
                    self.ended.update(job for _, job, _ in part)
            if worker.finish(part, outcome, "failed" if outcome == "d" else None, 0.02):
                self.faults.append(f"{part} of a living worker were not its own")

    def _dies(self, session: Session, worker: Worker, claimed: list[Any]) -> None:
        self.end(claimed)
        session.execute("update tide.job_worker set seen_at = '-infinity' where worker_id = %s", [worker.number])
        held = "select count(*) from tide.job_lease where worker_id = %s"
        wait_until(lambda: one(session, held, worker.number) == 0, what="it is rescued")
        if claimed:
            # It thaws, and says that all went well.
            self.refused += len(claimed)
            if worker.finish(claimed) != len(claimed):
                self.faults.append(f"some of {claimed} were taken from a worker that was taken for dead")

    def rescues(self) -> None:
        with self.database.connect() as session:
            while not self.stop.wait(0.05):
                self.rescued += one(session, "select tide.job_rescue(20)")

    def cancels(self) -> None:
        chance = random.Random(7)
        turn = "select from tide.job_lane where priority = 0 order by turn desc limit 1 for no key update"
        with self.database.connect() as session:
            while not self.stop.wait(0.01):
                with self.lock:
                    recent = [job for job in self.enqueued[-200:] if job not in self.keys]
                if recent:
                    job = chance.choice(recent)
                    with session.transaction():
                        session.execute(turn)
                        waits = one(session, "select exists (select from tide.job_wait where id = %s)", job)
                        if not waits and one(session, "select tide.job_state('mail', %s)", job) == "pending":
                            session.execute("insert into tide.job_skip select outbox_id, %s from tide.job_queue", [job])
                            with self.lock:
                                self.cancelled.add(job)


def test_each_job_ends_once_whatever_everyone_does(database: Database) -> None:
    crowd = Crowd(database)
    with database.connect() as session:
        session.execute(
            "select tide.job_queue_create('mail', concurrency_limit => %s, key_limit => %s, partition_size => 1000)",
            [LIMIT, KEY_LIMIT],
        )
        until = time.monotonic() + SECONDS
        makers = [threading.Thread(target=crowd.enqueues, args=(number, until)) for number in range(4)]
        makers.append(threading.Thread(target=crowd.stays_open, args=(until,)))
        for maker in makers:
            maker.start()
        others: list[Callable[[], None]] = [crowd.rescues, crowd.cancels]
        others += [partial(crowd.works, number) for number in range(3)]
        with at_once(crowd.stop, others):
            for maker in makers:
                maker.join()
            dead = "select id from tide.job_dead where code = 'lease_expired'"

            def all_ended() -> bool:
                with crowd.lock:
                    open_jobs = set(crowd.enqueued) - set(crowd.ended) - crowd.cancelled
                return not open_jobs or open_jobs <= {job for (job,) in session.execute(dead)}

            wait_until(all_ended, 60, "every job has ended")
        attempts = session.execute(
            "select id, outcome from tide.job_attempt where outcome in ('s', 'd', 'c')"
        ).fetchall()
        last = {job for (job,) in session.execute(dead)}
        enqueued = Counter(crowd.enqueued)
        assert crowd.faults == []
        assert crowd.ended + Counter(crowd.cancelled) + Counter(last) == enqueued
        assert Counter(job for job, _ in attempts) + Counter(last) == enqueued
        assert {job for job, outcome in attempts if outcome == "c"} == crowd.cancelled
        assert crowd.refused > 0 and crowd.rescued > 0 and crowd.cancelled
        # What was taken last is still being written down.
        one(
            session, "select count(*) from tide.job_queue q, tide.job_claim(q.outbox_id, %s, 1)", Worker(session).number
        )
        left = "select count(*) from (select from tide.{} union all select) x"
        for table in ("job_lease", "job_wait", "job_running", "job_skip"):
            assert one(session, left.format(table)) == 1, table
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
