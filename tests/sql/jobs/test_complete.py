"""A job that its handler ends in its own transaction, and what the worker, a rescue or a stop do beside it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one
from tests.waiting import wait_until


def complete(session: Session, claimed: list[Any], which: int = 0) -> None:
    session.execute("select tide.job_complete(%s, %s, %s::smallint, '{\"done\": 1}')", list(claimed[which]))


def ended(session: Session, job: int) -> tuple[str, list[str]]:
    attempts = session.execute("select outcome from tide.job_attempt where id = %s order by attempt", [job]).fetchall()
    state = one(session, "select tide.job_state('mail', %s)", job)
    waits = one(session, "select exists (select from tide.job_wait where id = %s)", job)
    assert waits == (state == "pending")  # What has ended never runs again.
    return state, [outcome for (outcome,) in attempts]


def silent(session: Session) -> None:
    session.execute("update tide.job_worker set seen_at = '-infinity'")


@pytest.mark.parametrize("outcome", ["r", "d", "b", "s"])
def test_what_is_completed_stays_so_whatever_its_handler_does_next(session: Session, outcome: str) -> None:
    job, worker = enqueue(session, run_key="k"), Worker(session)
    claimed = worker.claim()
    complete(session, claimed)
    assert worker.finish(claimed, outcome) == 0
    assert ended(session, job) == ("succeeded", ["s"])
    assert (
        worker.claim() == []
        and one(session, "select count(*) from (select from tide.job_running union all select) r") == 1
    )


@pytest.mark.parametrize(("end", "state"), [("commit", ("succeeded", ["s"])), ("rollback", ("pending", ["r"]))])
def test_a_finish_waits_for_an_open_complete_but_other_jobs_of_the_claim_do_not(
    database: Database, session: Session, end: str, state: object
) -> None:
    jobs, worker = [enqueue(session) for _ in range(3)], Worker(session)
    claimed = worker.claim()
    with database.connect(autocommit=False) as handler, ThreadPoolExecutor(1) as pool:
        complete(handler, claimed)
        session.execute("set lock_timeout = '2s'")
        assert worker.finish(claimed[1:2]) == 0
        session.execute("set lock_timeout = 0")
        failed = pool.submit(worker.finish, [claimed[0], claimed[2]], "r")
        waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        with database.connect() as watch:
            wait_until(lambda: one(watch, waits) == 1, what="the finish waits")
        getattr(handler, end)()
        assert failed.result(30) == 0
    assert ended(session, jobs[0]) == state
    assert ended(session, jobs[2]) == ("pending", ["r"])
    assert one(session, "select count(*) from (select from tide.job_lease union all select) l") == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_rescue_and_a_stop_leave_what_an_open_transaction_completes(
    database: Database, session: Session, end: str
) -> None:
    job, worker = enqueue(session), Worker(session)
    claimed = worker.claim()
    with database.connect(autocommit=False) as handler:
        complete(handler, claimed)
        silent(session)
        assert one(session, "select tide.job_rescue(20)") == 0
        assert one(session, "select tide.job_worker_stop(%s)", worker.number) == 0
        getattr(handler, end)()
    one(session, "select tide.job_rescue(20)")
    assert ended(session, job) == (("succeeded", ["s"]) if end == "commit" else ("pending", ["l"]))
    assert one(session, "select count(*) from (select from tide.job_lease union all select) l") == 1


def test_a_job_that_was_given_to_others_is_not_completed(session: Session) -> None:
    job, worker = enqueue(session), Worker(session)
    claimed = worker.claim()
    silent(session)
    assert one(session, "select tide.job_rescue(20)") == 1
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"job {job} is not this worker's any more"):
        complete(session, claimed)


def test_a_job_named_twice_in_a_finish_ends_no_other(session: Session) -> None:
    jobs, worker = [enqueue(session), enqueue(session)], Worker(session)
    claimed = worker.claim()
    worker.finish([claimed[0], claimed[0]])
    assert session.execute("select ids::text, open from tide.job_lease").fetchall() == [
        (f"{{[{jobs[1]},{jobs[1] + 1})}}", 1)
    ]
    assert worker.finish(claimed[1:]) == 0


def test_the_job_of_a_silent_worker_is_retried_after_a_pause_that_doubles_and_is_dead_at_its_last_attempt(
    session: Session,
) -> None:
    job = enqueue(session, max_attempts=3)
    pauses = []
    for _ in range(3):
        assert len(Worker(session).claim()) == 1
        silent(session)
        session.execute("select tide.job_rescue(20)")
        pauses += session.execute(
            "select round(extract(epoch from available_at - (select max(ended_at) from tide.job_attempt)))"
            "  from tide.job_wait"
        ).fetchall()
        session.execute("update tide.job_wait set available_at = now()")
    assert pauses == [(2,), (4,)]
    assert ended(session, job) == ("dead_letter", ["l", "l", "l"])
