"""Schedules: what is set is kept, and a time is fired once, with its jobs in the same transaction."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.services.postgres import Database
from tests.sql.jobs.jobs import Session, one
from tests.waiting import wait_until

FIRST, NEXT = datetime(2030, 1, 1, 6, tzinfo=UTC), datetime(2030, 1, 2, 6, tzinfo=UTC)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.connect() as session:
        session.execute("select tide.job_queue_create('mail')")
        session.execute(
            "select tide.job_schedule_set('digest', 'mail', '0 6 * * *', 'send_digest', '{\"n\": 1}', priority => 3)"
        )
        yield session


def schedule(session: Session) -> dict[str, Any]:
    with session.cursor(row_factory=dict_row) as cursor:
        [row] = cursor.execute("select * from tide.job_schedule_list()").fetchall()
    return row


def fire(session: Session, seen_at: datetime | None, next_at: datetime, *ticks: datetime) -> Any:
    return one(
        session, "select tide.job_schedule_fire('digest', %s, %s, %s::timestamptz[])", seen_at, next_at, list(ticks)
    )


def is_blocked(session: Session, other: Session) -> bool:
    return bool(one(session, "select cardinality(pg_blocking_pids(%s)) > 0", other.info.backend_pid))


def test_a_fired_time_enqueues_a_job_that_names_it(session: Session) -> None:
    assert fire(session, None, FIRST) == []  # a new one gets its first time
    [job] = fire(session, FIRST, NEXT, FIRST)
    row = session.execute(
        "select name, payload, priority, metadata, kind::text from tide.job where id = %s", [job]
    ).fetchone()
    assert row == ("send_digest", {"n": 1}, 3, {"schedule": "digest", "tick": "2030-01-01T06:00:00+00:00"}, "p")
    found = schedule(session)
    assert (found["next_at"], found["last_at"]) == (NEXT, FIRST)
    assert str(found["last_job"]) == str(one(session, "select tide.job_uuid('mail', %s)", job))


def test_of_all_who_saw_a_time_one_fires_it(session: Session, database: Database) -> None:
    """Also where both are under way at once: the second waits for the first, and finds another time."""
    fire(session, None, FIRST)
    with database.connect() as other, database.connect() as third, ThreadPoolExecutor() as threads:
        with session.transaction():
            assert len(fire(session, FIRST, NEXT, FIRST)) == 1
            second = threads.submit(fire, other, FIRST, NEXT, FIRST)
            wait_until(lambda: is_blocked(third, other), 20, "the second waits for the first")
        assert second.result(20) is None
    assert one(session, "select count(*) from tide.job") == 1


def test_a_fire_that_is_rolled_back_is_due_again(session: Session) -> None:
    fire(session, None, FIRST)
    with session.transaction(force_rollback=True):
        fire(session, FIRST, NEXT, FIRST)
    assert schedule(session)["next_at"] == FIRST
    assert len(fire(session, FIRST, NEXT, FIRST)) == 1


def test_the_same_again_changes_nothing_and_another_time_is_counted_from_now(session: Session) -> None:
    fire(session, None, FIRST)
    again = "select tide.job_schedule_set('digest', 'mail', %s, 'send_digest', %s, priority => 3)"
    assert one(session, again, "0 6 * * *", '{"n": 1}') is False
    assert one(session, again, "0 6 * * *", '{"n": 2}') is True
    assert schedule(session)["next_at"] == FIRST
    assert one(session, again, "0 7 * * *", '{"n": 2}') is True
    assert schedule(session)["next_at"] is None


def test_a_disabled_schedule_fires_nothing_and_counts_from_now_once_enabled(session: Session) -> None:
    fire(session, None, FIRST)
    session.execute("select tide.job_schedule_disable('digest')")
    assert fire(session, None, NEXT) is None
    session.execute("select tide.job_schedule_enable('digest')")
    assert schedule(session)["next_at"] is None
    session.execute("select tide.job_schedule_delete('digest')")
    assert one(session, "select count(*) from tide.job_schedule_list()") == 0


def then(template: str) -> str:
    return f"'x', 'mail', '* * * * *', 'n', options => '{{\"then\": {template}}}'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'x', 'mail', '* * * *', 'n'", 'cron of schedule "x" must be minute, hour'),
        ("'x', 'mail', '* * * * *', 'n', missed => 'never'", 'missed of schedule "x" must be one, all or skip'),
        ("'x', 'nowhere', '* * * * *', 'n'", 'job queue "nowhere" does not exist'),
        ("'x', 'mail', '* * * * *', 'n', kind => 'shell'", "kind 'shell' of a job is not known"),
        ("'x', 'mail', '* * * * *', 'n', dedupe => 'waiting'", 'dedupe of schedule "x" needs a dedupe_key'),
        ("'x', 'mail', '* * * * *', 'n', payload => to_jsonb(repeat('ab', 3000000))", "its limit is 1048576"),
        (then('{"payload": 1}'), "options.then is not a job: it has no name"),
        (then('{"name": "a", "queue": "nowhere"}'), 'job queue "nowhere" does not exist'),
        (then('{"name": "a", "options": {"then": 1}}'), "options.then.options.then is not a job"),
        ("null, 'mail', '* * * * *', 'n'", "schedule of schedule NULL must be a name"),
    ],
)
def test_what_no_job_could_be_is_refused(session: Session, arguments: str, said: str) -> None:
    with pytest.raises(psycopg.Error, match=said):
        session.execute(f"select tide.job_schedule_set({arguments})")


def test_schedules_go_with_their_queue(session: Session) -> None:
    session.execute("select tide.job_queue_drop('mail')")
    assert one(session, "select count(*) from tide.job_schedule") == 0
