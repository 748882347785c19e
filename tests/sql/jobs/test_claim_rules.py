"""The three rules at the top of job_claim.sql. Each scenario goes well, and goes wrong where the rule is taken out
of the functions of the test's own database: so the rule is needed, and the scenario shows it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

Change = tuple[str, str, str]  # a function, and what is replaced in it by what
PAUSE = "perform pg_advisory_lock(4711); perform pg_advisory_unlock(4711);"


def change(session: Session, *changes: Change) -> None:
    for function, old, new in changes:
        text = one(
            session, "select pg_get_functiondef(p.oid) from pg_proc p where proname = %s and prokind = 'f'", function
        )
        assert text.count(old) == 1, (function, old)
        session.execute(text.replace(old, new).encode())
    session.execute("select tide.job_copy(outbox_id) from tide.job_queue")


def new_queue(session: Session) -> None:
    """Its gaps stay young: each claim looks at them, however busy the machine is."""
    session.execute("select tide.job_queue_create('mail')")
    session.execute("update tide.job_lane set aged_at = 'infinity'")


@pytest.fixture
def queue(database: Database) -> Any:
    with database.connect() as session:
        new_queue(session)
        yield session


@contextmanager
def claiming_in_a_pause(database: Database, worker: Worker) -> Any:
    """A claim that stops where the function has PAUSE, while the block does something. Gives its ids afterwards."""
    found: list[int] = []
    with database.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("select pg_advisory_lock(4711)")
        claim = pool.submit(worker.claim)
        waits = "select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 4711 and not granted"
        wait_until(lambda: one(holder, waits), what="the claim is in its pause")
        yield found
        holder.execute("select pg_advisory_unlock(4711)")
        found += [job for _, job, _ in claim.result(30)]


def ids(worker: Worker, want: int = 100) -> list[int]:
    return [job for _, job, _ in worker.claim(want)]


def claims_of_other_lanes(database: Database, session: Session, worker: Worker) -> tuple[list[int], list[int]]:
    """A job of another lane lies between two of this one, and the horizon below all."""
    with database.connect(autocommit=False) as late:
        jobs = [enqueue(late), enqueue(session, priority=5), enqueue(session)]
        got = ids(worker)
        late.commit()
    return jobs, got + ids(worker) + ids(worker)


def becomes_visible_between_the_looks(
    database: Database, session: Session, worker: Worker
) -> tuple[list[int], list[int]]:
    """A job of a lane whose cursor lies below it, in a gap that another lane has made."""
    change(session, ("job_claim_in", "h := late.horizon;", f"h := late.horizon; {PAUSE}"))
    with database.connect(autocommit=False) as late:
        jobs = [enqueue(late, priority=5), enqueue(session)]
        got = ids(worker)
        with claiming_in_a_pause(database, worker) as more:
            late.commit()
        got += more
    return jobs, got + ids(worker) + ids(worker)


def becomes_visible_after_the_look(database: Database, session: Session, worker: Worker) -> tuple[list[int], list[int]]:
    look_ended = "gone := coalesce(gone"
    with database.connect(autocommit=False) as late:
        jobs = [enqueue(late), enqueue(session)]
        got = ids(worker)
        change(session, ("job_claim_late_in", look_ended, f"{PAUSE} {look_ended}"))
        with claiming_in_a_pause(database, worker) as more:
            late.commit()
        got += more
    return jobs, got + ids(worker) + ids(worker)


def a_look_is_cut_short(database: Database, session: Session, worker: Worker) -> tuple[list[int], list[int]]:
    with database.connect(autocommit=False) as late:
        jobs = [*(enqueue(late) for _ in range(5)), enqueue(session)]
        got = ids(worker)
        late.commit()
    for _ in range(4):
        got += ids(worker, 2)
    return jobs, got


VISIBLE = "where v.outbox_id = queue and v.id > greatest(lane.cursor_id, h) and v.id <= "
HORIZON = "select o.horizon into job_claim_late_in.horizon from tide.outbox_horizon(queue) o;"
Scenario = Callable[[Database, Session, Worker], tuple[list[int], list[int]]]


@pytest.mark.parametrize(
    ("scenario", "without"),
    [
        (claims_of_other_lanes, [("job_claim_in", f"{VISIBLE}s.last)", f"{VISIBLE}s.last and v.priority = 0)")]),
        (
            becomes_visible_between_the_looks,
            [("job_claim_lane_in", "unseen - picked, old_gaps = l.old_gaps - picked", "unseen")],
        ),
        (
            becomes_visible_after_the_look,
            [("job_claim_late_in", "gone := coalesce(gone", f"{HORIZON} gone := coalesce(gone")],
        ),
        (a_look_is_cut_short, [("job_claim_late_in", "if seen < room then", "if true then")]),
    ],
    ids=["1 what is visible", "2 what is picked", "3 the horizon is older than the look", "3 the look was whole"],
)
def test_a_claim_needs_the_rule(database: Database, queue: Session, scenario: Scenario, without: list[Change]) -> None:
    jobs, claimed = scenario(database, queue, Worker(queue))
    assert sorted(claimed) == jobs
    assert one(queue, "select isempty(gaps) and isempty(old_gaps) from tide.job_lane where priority = 0")
    # As it is from `relay migrate`, but for the rule.
    queue.execute("select tide.job_queue_drop('mail', true)")
    new_queue(queue)
    for function, old, new in without:
        change(queue, (function, old, new))
    jobs, claimed = scenario(database, queue, Worker(queue))
    assert sorted(claimed) != jobs
