"""The status of many pipelines at once: the same as of each alone, with each outbox asked once."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from relay.operations import status_facts
from relay.operations.status import Status, read_status
from relay.settings import Settings
from relay.sql import query
from scheduler.session import Session as Scheduler
from tests.services.postgres import Database
from tests.sql.support import make_outbox, publish, publish_many, relay_session

Session = psycopg.Connection[Any]
COUNT_LIMIT = 5
LIST = ("status_schedulers", "status_pipelines", "status_last_ids", "status_publishers")


@pytest.fixture
def varied(database: Database) -> Iterator[Database]:
    """Five outboxes with three pipelines each, at different offsets; rolled back ids, open publishers, long lags."""
    with database.connect() as owner, ExitStack() as open_publishers:
        for outbox in ("gap", "held", "large", "mixed", "quiet"):
            make_outbox(owner, outbox)
            for number in range(3):
                config = Jsonb({"sink_type": "memory"})
                owner.execute("select tide.relay_set_outbox(%s, %s, %s)", [f"{outbox}{number}", outbox, config])
        publish_many(owner, 3, "gap")
        with database.connect(autocommit=False) as undone:
            publish_many(undone, 4, "gap")
            undone.rollback()
        publish_many(owner, 9, "large")
        publish_many(owner, 2, "mixed")
        for outbox in ("held", "mixed"):
            publisher = open_publishers.enter_context(database.connect(autocommit=False))
            publish_many(publisher, 2, outbox)
            publish_many(owner, 2, outbox)
        publish(owner, "quiet")
        owner.execute("update tide.message set created_at = created_at - (100 - id) * interval '1000 s'")
        owner.execute("update tide.consumer_group set offset_id = right(name, 1)::int")
        owner.execute("update tide.consumer_group set offset_id = 5 where name = 'gap2'")
        _stop_some(owner)
        owner.execute("select tide.inbox_create('i')")
        owner.execute("select tide.relay_set_inbox('reverse', 'i', %s)", [Jsonb({"source_type": "memory"})])
        _own_all(owner)
        yield database


def _stop_some(owner: Session) -> None:
    """Two disabled, one invalid; retention has seen them standing, and will wait no more than minutes."""
    owner.execute("select tide.relay_disable('large1'), tide.relay_disable('gap0')")
    owner.execute("update tide.pipeline set invalid_reason = 'no' where name = 'mixed0'")
    owner.execute("select tide.outbox_retain(name) from tide.outbox")
    owner.execute("select tide.setting_set('max_retention_hours', '1')")
    owner.execute("update tide.outbox set retention_hours = 1")
    owner.execute("update tide.hold set since = since - interval '59 minutes'")
    owner.execute("update tide.pipeline set updated_at = updated_at - interval '1 day'")


def _own_all(owner: Session) -> None:
    owner.execute("""
        with scheduler as (
            insert into tide.scheduler
                   (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version, seen_at)
            select gen_random_uuid(), 'default', pid, backend_start, 'here', 1, '0', now() + interval '1 hour'
              from pg_stat_activity where pid = pg_backend_pid()
            returning scheduler_id
        )
        update tide.drain d set owner = s.scheduler_id from scheduler s""")
    owner.execute(
        "select tide.process_beat(gen_random_uuid(), 'workers', 'here', 2, '0', '{tide.forward, tide.reverse}')"
    )


class Alone(NamedTuple):
    """What one pipeline says when it is asked alone, in the plainest way."""

    name: str
    state: str
    lag_messages: int
    lag_seconds: float
    hold_seconds: float | None


def ask_alone(session: Session, name: str) -> Alone:
    enabled, invalid_reason, outbox, outbox_id, offset_id = (
        session.execute(
            "select p.enabled, p.invalid_reason, o.name, o.outbox_id, g.offset_id from tide.pipeline p"
            "  left join tide.consumer_group g using (group_id) left join tide.outbox o using (outbox_id)"
            " where p.name = %s",
            [name],
        ).fetchone()
        or (None,) * 5
    )
    stopped = "invalid" if invalid_reason else None if enabled else "disabled"
    if outbox_id is None:
        return Alone(name, stopped or "idle", 0, 0.0, None)
    horizon, publishers = one_row(session, "select * from tide.outbox_horizon(%s)", outbox_id)
    counted, readable, seconds, last_id = one_row(
        session,
        "select count(*), count(*) filter (where id <= %s),"
        "       coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8, tide.outbox_last_id(%s)"
        "  from tide.message where outbox_id = %s and id > %s",
        horizon, outbox_id, outbox_id, offset_id,
    )  # fmt: skip
    holds = session.execute(
        "select seconds_left from tide.outbox_holds(%s) where pipeline = %s and ending", [outbox, name]
    )
    hold = holds.fetchone() if stopped else None
    return Alone(
        name,
        stopped or ("waiting" if readable else "held" if publishers or offset_id > last_id else "idle"),
        counted if counted < COUNT_LIMIT else last_id - offset_id,
        seconds,
        max(0.0, hold[0]) if hold else None,
    )


def one_row(session: Session, statement: str, *parameters: object) -> tuple[Any, ...]:
    row = session.execute(statement.encode(), parameters).fetchone()
    assert row
    return tuple(row)


def test_each_pipeline_says_what_it_would_say_alone(varied: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_facts, "COUNT_LIMIT", COUNT_LIMIT)
    with relay_session(varied.url) as session, varied.connect() as owner:
        together = read_status(session)
        alone = [ask_alone(owner, found.name) for found in together]
    assert [exact(found) for found in together] == [exact(found) for found in alone]
    assert [found.lag_seconds for found in together] == pytest.approx([found.lag_seconds for found in alone], abs=100)
    assert [found.hold_seconds or 0 for found in together] == pytest.approx(
        [found.hold_seconds or 0 for found in alone], abs=100
    )
    assert {found.state for found in together} == {"disabled", "invalid", "waiting", "held", "idle"}
    assert max(found.lag_messages for found in together) > COUNT_LIMIT
    assert any(found.hold_seconds is not None for found in together)
    assert len(together) == 16


def exact(found: Status | Alone) -> tuple[object, ...]:
    return found.name, found.state, found.lag_messages, found.lag_seconds > 0, found.hold_seconds is None


def test_only_the_named_pipelines_are_read(varied: Database) -> None:
    with relay_session(varied.url) as session:
        everything = {found.name: found.lag_messages for found in read_status(session)}
        named = read_status(session, ["mixed1", "large0"])
        assert [(found.name, found.lag_messages) for found in named] == [
            (name, everything[name]) for name in ("large0", "mixed1")
        ]


def test_the_lag_for_metrics_is_that_of_each_alone(varied: Database) -> None:
    with closing(Scheduler(Settings(postgres_url=varied.url))) as scheduler, varied.connect() as owner:
        pipelines = owner.execute("""
            select p.name, g.outbox_id, g.offset_id, tide.outbox_last_id(g.outbox_id) - g.offset_id
              from tide.pipeline p join tide.consumer_group g using (group_id)""").fetchall()
        found = {row.name: row for row in scheduler.lag([name for name, *_ in pipelines])}
        assert set(found) == {name for name, _, _, behind in pipelines if behind > 0}
        assert {row.seconds is None for row in found.values()} == {False, True}, "some ids were rolled back"
        for name, outbox_id, offset_id, behind in pipelines:
            if name in found:
                seconds, open_seconds = one_row(
                    owner,
                    "select extract(epoch from clock_timestamp() - min(created_at))::float8,"
                    "       tide.outbox_oldest_publisher_seconds(%s)"
                    "  from tide.message where outbox_id = %s and id > %s",
                    outbox_id, outbox_id, offset_id,
                )  # fmt: skip
                assert found[name].messages == behind
                assert found[name].seconds == (None if seconds is None else pytest.approx(seconds, abs=100))
                assert found[name].publisher_seconds == pytest.approx(open_seconds, abs=100)
                assert (found[name].publisher_seconds > 0) == (open_seconds > 0)


def test_an_outbox_that_is_settled_is_left_out_of_the_holds_unless_it_is_replayed(varied: Database) -> None:
    with varied.connect() as owner:
        owner.execute("update tide.consumer_group set offset_id = 9 where name like 'large_'")
        assert "large1" not in held(owner)
        assert held(owner) == held(owner, "select h.pipeline from tide.outbox o, tide.outbox_holds(o.name) h"
                                          " where h.messages > 0 and h.seconds_left is not null")  # fmt: skip
        owner.execute("select tide.relay_replay('large1', 2, 5)")
        assert "large1" in held(owner)


def held(session: Session, statement: str = "") -> set[str]:
    """The pipelines that hold messages for some time only; as a scheduler asks, if by no other statement."""
    with session.cursor(row_factory=dict_row) as cursor:
        if statement:
            return {row["pipeline"] for row in cursor.execute(statement.encode()).fetchall()}
        [page] = cursor.execute(query("outbox_page_unsettled"), {"after_id": 0, "max_outboxes": 100}).fetchall()
        found = cursor.execute(query("holds"), {"names": page["unsettled"]}).fetchall()
        return {row["pipeline"] for row in found}


def test_each_outbox_is_asked_once_however_many_pipelines_read_it(varied: Database) -> None:
    with varied.admin() as admin:
        admin.execute(f"alter database {varied.name} set track_functions = 'all'")
    with relay_session(varied.url) as session, session.transaction():
        read_status(session)
        found = session.execute("select funcname, calls from pg_stat_xact_user_functions where schemaname = 'tide'")
        calls = dict(found.fetchall())
    assert calls["outbox_horizon"] == 2, "two have open publishers"
    assert calls["outbox_holds"] == 3, "three have a pipeline that is stopped"


@pytest.mark.parametrize("statement", LIST)
def test_the_list_reads_no_message(varied: Database, statement: str) -> None:
    """Locks show also what functions open, which a plan does not."""
    parameters = {"names": None, "outbox_ids": [1, 2, 3, 4, 5], "count_limit": 10}
    with relay_session(varied.url) as session, session.transaction():
        plan = session.execute(b"explain " + query(statement).encode(), parameters).fetchall()
        assert not any(re.search(r" on message|\bmessage_\d", line) for (line,) in plan)
        session.execute(query(statement), parameters)
        opened = session.execute("""
            select c.relname from pg_locks l join pg_class c on c.oid = l.relation
             where l.pid = pg_backend_pid() and c.relname like 'message%' and c.relkind <> 'S'""")
        assert opened.fetchall() == []
