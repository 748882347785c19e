"""Jobs in plain SQL: enqueued in a transaction, claimed, ended; priorities, limits, keys, and who waits for whom."""

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, Worker, enqueue, one

pytestmark = pytest.mark.each_postgres


def test_a_job_is_claimed_in_its_order_and_ended_once(session: Session) -> None:
    ids = [enqueue(session, {"n": n}) for n in range(3)]
    low, high = enqueue(session, priority=-5), enqueue(session, priority=7)
    later = enqueue(session, available_at="infinity")
    keyed = enqueue(session, run_key="tenant")
    session.commit()
    me = Worker(session)
    claimed = me.claim()
    assert sorted(c[1] for c in claimed) == sorted([*ids, low, high, keyed])
    assert later not in [c[1] for c in claimed]
    assert me.claim() == []
    assert me.finish(claimed) == 0
    assert me.finish(claimed) == len(claimed)
    assert one(session, "select count(*) from tide.job_lease") == 0
    assert one(session, "select count(*) from tide.job_attempt where outcome = 's'") == 6


def ids(claimed: list[Any]) -> list[int]:
    return [job for _, job, _ in claimed]


def test_an_open_enqueue_stops_no_claim_and_an_open_claim_no_enqueue(database: Database, session: Session) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"priority": 5},
        {"run_key": "key"},
        {"available_at": "-infinity"},
        {"idempotency_key": "first"},
        {"dedupe_key": "first", "dedupe": "waiting"},
        {"dedupe_key": "second", "debounce": "0"},
    ]
    with database.connect(autocommit=False) as other:
        for connection in (session, other):
            connection.execute("set lock_timeout = '2s'")
        late = [enqueue(other, **kind) for kind in kinds]
        once = {"idempotency_key": "third", "dedupe_key": "third"}
        early = [enqueue(session, **(kind | {k: v for k, v in once.items() if k in kind})) for kind in kinds]
        assert ids(Worker(session).claim()) == early
        other.commit()
        # The claim stays open, and another enqueue of each kind comes by.
        assert ids(Worker(other).claim()) == late
        once = {"idempotency_key": "fourth", "dedupe_key": "fourth"}
        more = [enqueue(session, **(kind | {k: v for k, v in once.items() if k in kind})) for kind in kinds]
        other.commit()
        assert ids(Worker(session).claim()) == more


def test_limits_hold_over_sessions_and_a_paused_queue_rests(database: Database, session: Session) -> None:
    session.execute("""update tide.job_queue set concurrency_limit = 7, key_limit = 2""")
    for n in range(6):
        enqueue(session, run_key="a"), enqueue(session, run_key=f"key {n}"), enqueue(session, priority=n % 2)
    session.execute("select tide.job_queue_pause('mail')")
    with database.connect() as a, database.connect() as b:
        workers = [Worker(s) for s in (session, a, b)]
        assert [worker.claim(5) for worker in workers] == [[], [], []]
        session.execute("select tide.job_queue_resume('mail')")
        claimed = [worker.claim(5) for worker in workers]
        assert [len(part) for part in claimed] == [5, 2, 0]
        of_one = "select count(*) from tide.job_running where run_key = 'a'"
        assert one(session, of_one) == 2
        # What ends makes room, whatever became of it.
        for outcome in "rdc":
            workers[0].finish([claimed[0].pop()], outcome)
        assert len(workers[2].claim(5)) == 3 and one(session, of_one) <= 2


def test_a_rate_limits_what_begins_and_a_rest_lets_a_burst_through(session: Session) -> None:
    session.execute("update tide.job_queue set rate = 0.001, burst = 5")
    session.execute("select tide.job_enqueue_many('mail', '{send}', array_fill('{}'::jsonb, array[30]))")
    worker = Worker(session)
    assert len(worker.claim(3)) == 3
    assert len(worker.claim(30)) == 2
    assert worker.claim(30) == []
    due = "select l.due_seconds from tide.job_queue q, tide.job_look(q.outbox_id) l"
    assert 900 < one(session, due) <= 1000
    session.execute("update tide.job_lane set tokens_at = tokens_at - interval '3001 seconds'")
    assert one(session, due) is None
    assert len(worker.claim(30)) == 3
    session.execute("update tide.job_lane set tokens_at = tokens_at - interval '1 day'")
    assert len(worker.claim(30)) == 5


def test_a_fair_queue_gives_an_eighth_to_lower_lanes(session: Session) -> None:
    jobs = {p: {enqueue(session, priority=p) for _ in range(60)} for p in (5, 0, -5)}

    def shares(claimed: list[int]) -> list[int]:
        return [len(jobs[p] & set(claimed)) for p in (5, 0, -5)]

    worker = Worker(session)
    assert shares(ids(worker.claim(16))) == [16, 0, 0]
    session.execute("update tide.job_queue set fair = true")
    assert shares(ids(worker.claim(16))) == [14, 0, 2]
    # Claims of one job take turns, too.
    small = shares([job for _ in range(24) for job in ids(worker.claim(1))])
    assert small[0] > 12 and small[2] >= 1, small
    while ids(worker.claim(16)):
        pass
    assert one(session, "select sum(open) from tide.job_lease") == 180


def test_run_keys_take_turns_and_none_is_forgotten(session: Session) -> None:
    session.execute("update tide.job_queue set key_limit = 1")
    # More keys that wait than a look is at.
    many = """select tide.job_enqueue_many(
        'mail', '{send}', array_fill('{}'::jsonb, array[%s]), available_at => 'infinity', run_keys => %s)"""
    session.execute(many, [1500, [f"a{n:05}" for n in range(1500)]])
    last = enqueue(session, run_key="b")
    worker = Worker(session)
    claimed = worker.claim(1)
    assert ids(claimed) == [last]
    first = enqueue(session, run_key="a")
    enqueue(session, run_key="b")
    assert ids(worker.claim(1)) == [first]
    assert worker.claim(1) == []
    worker.finish(claimed)
    assert len(worker.claim(1)) == 1


def test_a_cancelled_job_is_passed_over_and_its_lease_ends(session: Session) -> None:
    jobs = [enqueue(session, priority=p) for p in (0, 0, 3)]
    session.execute("insert into tide.job_skip select outbox_id, unnest(%s::bigint[]) from tide.job_queue", [jobs[1:]])
    worker = Worker(session)
    claimed = worker.claim()
    assert ids(claimed) == jobs[:1]
    assert session.execute("select ids::text, open from tide.job_lease").fetchall() == [
        (f"{{[{jobs[0]},{jobs[0] + 1})}}", 1)
    ]
    assert one(session, "select count(*) from tide.job_attempt where outcome = 'c'") == 2
    assert one(session, "select count(*) from (select from tide.job_skip union all select) s") == 1


def test_a_worker_that_is_not_known_claims_nothing(session: Session) -> None:
    worker = Worker(session)
    session.execute("select tide.job_worker_stop(%s)", [worker.number])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"worker {worker.number} is not known"):
        worker.claim()


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("concurrency_limit", 0, "must be a whole number from 1, or null"),
        ("key_limit", -1, "must be a whole number from 1, or null"),
        ("rate", 0, "must be above 0 jobs a second"),
        ("burst", 0.5, "must be a number from 1"),
        ("fair", None, "must be true or false"),
        ("dead_retention_hours", -1, "must be a whole number of hours"),
        ("max_payload_bytes", 0, "must be a whole number of bytes"),
    ],
)
def test_a_setting_that_is_not_possible_is_named(session: Session, setting: str, value: object, rule: str) -> None:
    refused = psycopg.errors.InvalidParameterValue
    with pytest.raises(refused, match=f'{setting} of job queue "other" is .*: it {rule}'):
        session.execute(f"select tide.job_queue_create('other', {setting} => %s)", [value])
    with pytest.raises(refused, match=f'{setting} of job queue "mail" is .*: it {rule}'):
        session.execute("select tide.job_queue_set('mail', %s)", [Jsonb({setting: value})])


def test_a_queue_is_not_idle_while_a_job_lies_below_the_cursor(database: Database, session: Session) -> None:
    """It committed after a claim had passed its id, and no claim has come back for it yet."""
    worker = Worker(session)
    with database.connect(autocommit=False) as slow:
        late = enqueue(slow)
        enqueue(session)
        assert late not in worker.run()
        slow.commit()
    idle = "select tide.job_queue_is_idle(outbox_id) from tide.job_queue"
    assert not one(session, idle)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has jobs that wait or run"):
        session.execute("select tide.job_queue_drop('mail')")
    assert worker.run() == [late]
    assert one(session, idle)


@pytest.mark.parametrize(
    ("limits", "options", "durable", "waits"),
    [
        ({}, {}, False, False),
        ({"fair": True}, {"priority": 3}, False, False),
        ({}, {}, True, True),
        ({"concurrency_limit": 5}, {}, False, True),
        ({"rate": 5}, {}, False, True),
        ({"key_limit": 5}, {"run_key": "tenant"}, False, True),
    ],
)
def test_a_claim_that_need_not_be_durable_waits_for_the_disk_only_where_a_limit_is_kept(
    session: Session, limits: dict[str, Any], options: dict[str, Any], durable: bool, waits: bool
) -> None:
    session.execute("select tide.job_queue_set('mail', %s)", [Jsonb(limits)])
    job = enqueue(session, **options)
    me = Worker(session)
    with session.transaction():
        claimed = session.execute(
            "select c.id from tide.job_queue q, tide.job_claim(q.outbox_id, %s, 10, %s) c", [me.number, durable]
        ).fetchall()
        assert claimed == [(job,)]
        assert (one(session, "show synchronous_commit") == "on") is waits
    assert one(session, "show synchronous_commit") == "on"
