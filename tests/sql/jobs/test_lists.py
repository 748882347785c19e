"""The state of a job follows from where it is found; lists begin from the table that holds the state."""

from math import isfinite

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one, uuid_of
from tests.sql.support import refused

STATES = ("pending", "leased", "succeeded", "dead_letter", "cancelled")


def listed(session: Session, queue: str = "mail", **options: object) -> list[int]:
    named = "".join(f", {option} => %s" for option in options)
    found = session.execute(f"select id from tide.job_list(%s{named})", [queue, *options.values()]).fetchall()
    return [job_id for (job_id,) in found]


def test_each_job_is_in_one_state_and_in_its_list(session: Session) -> None:
    worker = Worker(session)
    done, dead, cancelled, running = (enqueue(session) for _ in range(4))
    lease = worker.claim()
    for outcome, job, code in (("s", lease[0], None), ("d", lease[1], "bad"), ("c", lease[2], "cancelled")):
        worker.finish([job], outcome, code)
    retried = enqueue(session)
    worker.finish(worker.claim(), "r", "hiccup", 60)
    later = enqueue(session, available_at="infinity")
    keyed = enqueue(session, run_key="k", priority=3)
    low, urgent, waiting = enqueue(session, priority=-7), enqueue(session, priority=9), enqueue(session)
    skipped = enqueue(session)
    session.execute("insert into tide.job_skip select outbox_id, %s from tide.job_queue", [skipped])
    expected = {
        "pending": [waiting, urgent, low, keyed, later, retried],
        "leased": [running],
        "succeeded": [done],
        "dead_letter": [dead],
        "cancelled": [skipped, cancelled],
    }
    everything = sorted((job for jobs in expected.values() for job in jobs), reverse=True)
    assert listed(session) == everything
    for state, jobs in expected.items():
        assert listed(session, state=state) == jobs
        assert {one(session, "select tide.job_state('mail', %s)", job) for job in jobs} == {state}
        # In pages of two, from below the last id of the page before.
        paged: list[int] = []
        while page := listed(session, state=state, max_rows=2, before_id=paged[-1] if paged else None):
            paged += page
        assert paged == jobs
    assert one(session, "select tide.job_state('mail', 999)") is None


def test_an_id_that_claims_passed_before_it_was_visible_is_pending(database: Database, session: Session) -> None:
    with database.connect(autocommit=False) as slow:
        late = enqueue(slow)
        enqueue(session)
        worker = Worker(session)
        assert late not in worker.run()
        slow.commit()
        assert listed(session, state="pending") == [late]
        assert one(session, "select tide.job_state('mail', %s)", late) == "pending"
        assert worker.run() == [late]
        assert listed(session, state="succeeded") == [late + 1, late]


def test_a_queue_without_history_still_knows_what_has_ended(session: Session) -> None:
    session.execute("select tide.job_queue_create('quiet', keep_succeeded => false)")
    job = enqueue(session, queue="quiet")
    Worker(session, "quiet").run()
    assert one(session, "select tide.job_state('quiet', %s)", job) == "succeeded"
    assert listed(session, "quiet", state="pending") == []


def test_filters_look_so_far_and_say_where_they_ended(session: Session) -> None:
    wanted = enqueue(session, name="rare", dedupe_key="d", run_key="k")
    session.execute("select tide.job_enqueue_many('mail', '{common}', array_fill('{}'::jsonb, array[2500]))")
    for options in ({"name": "rare"}, {"dedupe_key": "d"}, {"run_key": "k"}, {"name": "rare", "state": "pending"}):
        assert listed(session, **options) == [wanted]
    assert listed(session, name="rare", run_key="other") == []
    [(job_id, state)] = session.execute(
        "select id, state from tide.job_list('mail', name => 'rare', max_looked => 1000)"
    )
    assert (job_id, state) == (wanted + 1501, None)
    assert listed(session, name="rare", before_id=job_id) == [wanted]


READERS_OF_MANY = {
    "a filter": "select from tide.job_list('mail', name => 'rare')",
    "a filter and a state": "select from tide.job_list('mail', run_key => 'k', state => 'pending')",
    "names without a handler": "select from tide.job_unknown_handlers()",
    "a replay of many": "select tide.job_replay_many('mail', name => 'rare')",
    "a cancel of many": "select tide.job_cancel_many('mail', name => 'rare')",
}


@pytest.mark.parametrize("statement", READERS_OF_MANY.values(), ids=READERS_OF_MANY)
def test_what_reads_many_jobs_plans_once_for_all_of_them(database: Database, session: Session, statement: str) -> None:
    """To plan for one job takes as long as to read a hundred: with 100,000 it was more than a minute."""
    session.execute("select tide.job_enqueue_many('mail', '{common}', array_fill('{}'::jsonb, array[100]))")
    worker = Worker(session)
    claimed = worker.claim(60)
    assert worker.finish(claimed[:30], "b", "unknown_handler", 60) == 0
    assert worker.finish(claimed[30:], "d", "bad") == 0
    with database.admin() as admin, admin.transaction():
        admin.execute("set local track_functions = 'all'")
        admin.execute(statement)
        calls = dict(admin.execute("select funcname, calls from pg_stat_xact_user_functions").fetchall())
    assert calls.get("job_stored", 0) < 10


def test_a_job_is_shown_in_full_with_its_attempts(session: Session) -> None:
    worker = Worker(session)
    job = enqueue(session, {"total": 1.50}, idempotency_key="i", headers=psycopg.types.json.Jsonb({"A": "b"}))
    worker.finish(worker.claim(), "r", "timeout")
    worker.finish(worker.claim(), "d", "bad")
    columns = "state, attempts, code, error, payload, headers, kind, idempotency_key, cancel_requested, worker_id"
    row = session.execute(f"select {columns} from tide.job_get(%s)", [uuid_of(session, job)]).fetchone()
    assert row == (
        "dead_letter", 2, "bad", "it was bad", '{\n    "total": 1.50\n}'.replace("1.50", "1.5"), '{\n    "A": "b"\n}',
        "python", "i", False, None,
    )  # fmt: skip
    attempts = session.execute(
        "select attempt, status, ms, code, worker_id, started_at < ended_at from tide.job_attempts(%s)",
        [uuid_of(session, job)],
    )
    assert attempts.fetchall() == [
        (1, "timeout", 12, "timeout", worker.number, True),
        (2, "failed", 12, "bad", worker.number, True),
    ]
    running = enqueue(session)
    worker.claim()
    row = session.execute(
        "select state, worker_id, worker_host, worker_pid from tide.job_get(%s)", [uuid_of(session, running)]
    ).fetchone()
    assert row == ("leased", worker.number, "here", 1)
    assert session.execute("select from tide.job_get(%s)", [uuid_of(session, 999)]).fetchall() == []


def test_a_dead_job_is_shown_after_its_partition_has_gone(session: Session) -> None:
    job = enqueue(session, {"a": 1})
    Worker(session).run(outcome="d", code="bad")
    [(number,)] = session.execute("select outbox_id from tide.job_queue")
    session.execute(f"truncate tide.job_{number}_0, tide.job_attempt_{number}_0")
    [(state, payload)] = session.execute("select state, payload::jsonb from tide.job_get(%s)", [uuid_of(session, job)])
    assert (state, payload) == ("dead_letter", {"a": 1})
    assert listed(session, state="dead_letter") == [job]


def test_jobs_that_outlive_their_partition_are_in_the_list_of_all(session: Session) -> None:
    dead = enqueue(session, name="dead")
    Worker(session).run(outcome="d", code="bad")
    enqueue(session)
    later = enqueue(session, name="later", available_at="infinity")
    session.execute("insert into tide.job_kept select j.* from tide.job j where j.id = %s", [later])
    [(number,)] = session.execute("select outbox_id from tide.job_queue")
    session.execute(f"truncate tide.job_{number}_0, tide.job_attempt_{number}_0")
    newest = enqueue(session, name="newest")
    assert listed(session) == [newest, later, dead]
    assert listed(session, name="dead") == [dead]
    paged: list[int] = []
    while page := listed(session, max_rows=1, before_id=paged[-1] if paged else None):
        paged += page
    assert paged == [newest, later, dead]


def test_a_job_that_is_due_since_ever_leaves_numbers_of_its_queue(session: Session) -> None:
    """`clock_timestamp() - '-infinity'` is infinite, and before PostgreSQL 17 an error for all queues."""
    enqueue(session, available_at="-infinity")
    session.execute("update tide.job_wait set available_at = '-infinity'")
    [(due, oldest)] = session.execute("select due, oldest_due_seconds from tide.job_stats()").fetchall()
    assert (due, isfinite(oldest)) == (1, True)


def test_what_cannot_be_listed_is_refused(session: Session) -> None:
    with refused("42704", 'job queue "nope" does not exist'):
        listed(session, "nope")
    with refused("22023", "state 'lost' of a job is not known", hint="dead_letter"):
        listed(session, state="lost")
    with refused("22023", "is not the id of a job"):
        session.execute("select * from tide.job_get('00000000-0000-0000-0000-000000000000')")


def blocks_read(session: Session, state: str | None) -> int:
    """By a page of ten."""
    statement = "explain (analyze, buffers, format json) select * from tide.job_list('mail', %s, max_rows => 10)"
    session.execute(statement, [state])
    [(plan,)] = session.execute(statement, [state])
    assert plan[0]["Plan"]["Actual Rows"] >= 1
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def test_a_page_of_a_list_costs_the_same_with_a_hundred_thousand_jobs(session: Session) -> None:
    worker = Worker(session)

    def live(ended: int, waiting: int) -> dict[str | None, int]:
        for number, outcome in ((ended, "s"), (1, "d"), (1, "c")):
            session.execute(
                "select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[%s]))", [number]
            )
            worker.run(number, outcome)
        session.execute("select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[%s]))", [waiting])
        worker.claim(10)
        session.execute("analyze tide.job, tide.job_attempt")
        return {state: blocks_read(session, state) for state in (None, *STATES)}

    few = live(500, 500)
    assert listed(session, state="pending", max_rows=1)
    worker.run(490)
    many = live(80_000, 20_000)
    assert {state: many[state] for state in many if many[state] > few[state] * 2 + 100} == {}


def test_a_time_that_has_passed_makes_no_job_older_than_it_is(session: Session) -> None:
    """By each way in; what was given is kept with the job."""
    past = "2020-01-01 00:00:00+00"
    first = enqueue(session, available_at=past)
    Worker(session).run(outcome="d")
    enqueue(session, available_at=past, run_key="k")
    enqueue(session, available_at=past, idempotency_key="i")
    many = "select tide.job_enqueue_many('mail', '{send}', '{1,2}'::jsonb[], available_at => %s)"
    session.execute(many, [past])
    session.execute("select tide.job_replay(%s, available_at => %s)", [uuid_of(session, first), past])
    [(due, oldest)] = session.execute("select due, oldest_due_seconds from tide.job_stats('mail')").fetchall()
    assert due == 5 and 0 <= oldest < 3600
    assert one(session, "select count(*) from tide.job where available_at = %s", past) == 6
