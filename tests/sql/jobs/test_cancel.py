"""Jobs are cancelled: those that wait, those that run, those that claims have passed."""

import threading
from contextlib import suppress
from typing import Any

import psycopg

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.support import refused
from tests.waiting import wait_until


def state(session: Session, job: int) -> str:
    return str(one(session, "select tide.job_state('mail', %s)", job))


def cancel(session: Session, job: int) -> str:
    return str(one(session, "select tide.job_cancel(%s, 'changed my mind')", uuid_of(session, job)))


def attempts(session: Session, job: int) -> list[Any]:
    return session.execute(
        "select attempt, status, code, error from tide.job_attempts(%s)", [uuid_of(session, job)]
    ).fetchall()


def test_what_waits_is_cancelled_at_once_and_never_claimed(session: Session, worker: Worker) -> None:
    retried = enqueue(session)
    worker.finish(worker.claim(), "r", "hiccup")
    plain, urgent = enqueue(session), enqueue(session, priority=4)
    later, keyed = enqueue(session, available_at="infinity"), enqueue(session, run_key="k")
    kept = enqueue(session)
    for job in (retried, plain, urgent, later, keyed):
        assert cancel(session, job) == "cancelled"
        assert state(session, job) == "cancelled"
    assert worker.run() == [kept]
    ended = (1, "cancelled", "cancelled", "changed my mind")
    assert [attempts(session, job) for job in (plain, urgent, later, keyed)] == [[ended]] * 4
    assert attempts(session, retried) == [(1, "failed", "hiccup", "it was hiccup"), (2, *ended[1:])]
    left = [
        one(session, f"select count(*) from tide.{table}")
        for table in ("job_wait", "job_skip", "job_lease", "job_running")
    ]
    assert left == [0, 0, 0, 0]


def test_one_that_claims_have_passed_before_it_was_visible_is_cancelled(database: Database, session: Session) -> None:
    worker = Worker(session)
    with database.connect(autocommit=False) as slow:
        late = enqueue(slow)
        enqueue(session)
        worker.run()
        slow.commit()
    assert cancel(session, late) == "cancelled"
    assert worker.run() == [] and state(session, late) == "cancelled"


def test_a_running_job_is_marked_and_its_worker_is_told(database: Database, session: Session, worker: Worker) -> None:
    first, second, third = (enqueue(session) for _ in range(3))
    claimed = worker.claim()
    with database.connect() as listener:
        listener.execute("listen tide_job_cancel")
        assert (cancel(session, first), cancel(session, second)) == ("leased", "leased")
        assert [n.payload for n in listener.notifies(timeout=10, stop_after=2)] == [str(worker.number)] * 2
    lease = claimed[0][0]
    beat = session.execute("select alive, leases, jobs from tide.job_worker_beat(%s)", [worker.number]).fetchone()
    assert beat == (True, [lease, lease], [first, second])
    assert one(session, "select cancel_requested from tide.job_get(%s)", uuid_of(session, first)) is True
    # Whether it stops, fails or hands back: it is not run again. If it ends well first, it has succeeded.
    worker.finish(claimed[:1], "r", "stopped")
    worker.finish(claimed[1:2], "s")
    worker.finish(claimed[2:], "r", "hiccup")
    assert [state(session, job) for job in (first, second, third)] == ["cancelled", "succeeded", "pending"]


def test_the_lease_of_a_worker_that_is_gone_ends_as_cancelled(session: Session, worker: Worker) -> None:
    job = enqueue(session)
    worker.claim()
    cancel(session, job)
    session.execute("select tide.job_rescue(-1)")
    assert state(session, job) == "cancelled"


def test_what_has_ended_cannot_be_cancelled(session: Session, worker: Worker) -> None:
    for outcome, word in (("s", "succeeded"), ("d", "dead_letter"), ("c", "cancelled")):
        job = enqueue(session)
        worker.run(outcome=outcome)
        with refused("55000", f"has ended: it is {word}", hint="pending or leased"):
            cancel(session, job)
    with refused("42704", "does not exist"):
        cancel(session, 999)


def test_a_dedupe_key_is_free_after_a_cancel(session: Session) -> None:
    job = enqueue(session, dedupe_key="d", dedupe="unfinished")
    assert enqueue(session, dedupe_key="d", dedupe="unfinished") == job
    cancel(session, job)
    assert enqueue(session, dedupe_key="d", dedupe="unfinished") > job


def test_claims_and_cancels_at_the_same_time_agree(database: Database, session: Session) -> None:
    """Each job is either run or cancelled, in whatever order."""
    ids = one(session, "select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[400]))")
    ran: list[int] = []

    def work() -> None:
        with database.connect() as mine:
            worker = Worker(mine)
            while claimed := worker.claim(7):
                # What is marked while it runs may still end well.
                worker.finish(claimed)
                ran.extend(c[1] for c in claimed)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for thread in workers:
        thread.start()
    cancelled = set()
    for job in ids[::-1]:
        found = one(session, "select tide.job_state('mail', %s)", job)
        if found == "pending" and job % 2:
            # It may have ended between the two calls.
            with suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                cancelled |= {job} if cancel(session, job) == "cancelled" else set()
    for thread in workers:
        thread.join()
    assert sorted([*ran, *cancelled]) == ids
    assert cancelled


def test_a_cancel_waits_for_a_claim_that_has_not_committed(database: Database, session: Session) -> None:
    job = enqueue(session)
    said: list[str] = []
    with database.connect(autocommit=False) as claiming:
        assert len(Worker(claiming).claim()) == 1
        asking = threading.Thread(target=lambda: said.append(cancel(session, job)))
        asking.start()
        with database.connect() as looking:
            waiting = "select count(*) from pg_locks where not granted"
            wait_until(lambda: said or one(looking, waiting))
        claiming.commit()
    asking.join()
    assert said == ["leased"]


def test_many_are_cancelled_by_what_they_have_in_common(session: Session, worker: Worker) -> None:
    a = [enqueue(session, name="a") for _ in range(3)]
    b = [enqueue(session, name="b", run_key="k", dedupe_key="d") for _ in range(3)]
    call = "select tide.job_cancel_many('mail', %s, name => %s, max_jobs => %s)"
    assert one(session, call, "pending", "a", 2) == 2
    assert [state(session, job) for job in a] == ["pending", "cancelled", "cancelled"]
    assert one(session, "select tide.job_cancel_many('mail', run_key => 'k', dedupe_key => 'd')") == 3
    assert worker.run() == a[:1]
    assert one(session, call, "pending", None, 10) == 0
    assert b and one(session, "select count(*) from tide.job_list('mail', 'cancelled')") == 5
    with refused("22023", "jobs that are succeeded cannot be cancelled"):
        session.execute(call, ["succeeded", None, 1])
