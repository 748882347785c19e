"""What the jobs returned that a claimed job has waited for."""

import json
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, uuid_of


@pytest.fixture
def session(database: Database) -> Any:
    with database.connect() as session:
        session.execute(
            "select tide.job_queue_create('mail'), tide.job_queue_create('forgets', keep_succeeded => false)"
        )
        yield session


def after(session: Session, *needed: str, run_if: str = "succeeded") -> int:
    return enqueue(session, options=Jsonb({"after": needed, "run_if": run_if}))


def returns(worker: Worker, *results: object, outcome: str = "s", code: str | None = None) -> list[str]:
    """Enqueues and runs jobs that return these; their public ids."""
    for _ in results:
        enqueue(worker.session, queue=worker.queue)
    claimed = worker.claim()
    n = len(results)
    worker.session.execute(
        'select tide.job_finish(%s, %s::bigint[], %s::bigint[], %s::smallint[], %s::"char"[], %s::int[],'
        " codes => %s::text[], results => %s::text[]::jsonb[])",
        [
            worker.number,
            *map(list, zip(*claimed, strict=True)),
            [outcome] * n,
            [1] * n,
            [code] * n,
            [*map(json.dumps, results)],
        ],
    )
    return [uuid_of(worker.session, job, worker.queue) for _, job, _ in claimed]


def results(session: Session, claimed: list[Any]) -> dict[int, Any]:
    """By the claimed jobs' ids."""
    rows = session.execute(
        "select lease_id, id, results from tide.job_results(%s::bigint[], %s::bigint[])",
        [[lease for lease, _, _ in claimed], [job for _, job, _ in claimed]],
    ).fetchall()
    assert {(lease, job) for lease, job, _ in rows} <= {(lease, job) for lease, job, _ in claimed}
    return {job: json.loads(text) for _, job, text in rows}


def test_claimed_jobs_get_what_those_returned_that_they_have_waited_for(session: Session) -> None:
    worker = Worker(session)
    first, second = returns(worker, {"rows": [1, "é"]}, None)
    enqueue(session)
    both, one_of_them = after(session, first, second, first.upper()), after(session, second)
    claimed = worker.claim()
    assert len(claimed) == 3
    assert results(session, claimed) == {
        both: {first: {"rows": [1, "é"]}, second: None},
        one_of_them: {second: None},
    }
    assert results(session, []) == {}
    worker.finish(claimed, "r")
    assert results(session, claimed) == {}, "they are not claimed any more"
    assert set(results(session, worker.claim())) == {both, one_of_them}


def test_a_result_that_is_not_kept_is_absent(session: Session) -> None:
    worker = Worker(session)
    [kept] = returns(worker, 1)
    absent = [
        *returns(worker, 2, outcome="d"),
        *returns(worker, 3, outcome="c"),
        *returns(Worker(session, "forgets"), 4),
        *returns(worker, None, code="result_dropped"),
    ]
    job = after(session, *absent, kept, run_if="ended")
    assert results(session, worker.claim()) == {job: {kept: 1}}


def test_what_is_too_much_for_a_worker_s_memory_is_absent(session: Session) -> None:
    worker = Worker(session)
    needed = returns(worker, "small", "x" * 16 * 1024 * 1024, "late")
    jobs = [after(session, *needed), after(session, needed[2], needed[0])]
    claimed = worker.claim()
    assert results(session, claimed) == {
        jobs[0]: {needed[0]: "small"},
        jobs[1]: {needed[0]: "small", needed[2]: "late"},
    }


def test_a_replay_gets_them_too(session: Session) -> None:
    worker = Worker(session)
    needed = returns(worker, [1])
    job = after(session, *needed)
    worker.run(outcome="d")
    session.execute("select tide.job_replay(%s)", [uuid_of(session, job)])
    [claimed] = worker.claim()
    assert results(session, [claimed]) == {claimed[1]: {needed[0]: [1]}}
