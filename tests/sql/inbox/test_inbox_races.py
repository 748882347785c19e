"""Workers of one inbox that do everything there is, at random, and die: each message has its effect once, in order."""

import contextlib
import json
import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.inbox.inboxes import call, claim, end_lease, failed, fill_many, processed
from tests.sql.outbox.crowd import Crowd
from tests.sql.support import refused
from tests.waiting import wait_until

MESSAGES = 400
AGGREGATES = 40


@pytest.fixture
def db(database):
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands', max_retries => 1000)")
        connection.execute(
            "create table effect (number bigint generated always as identity, event_id text, replayed boolean)"
        )
        yield connection


class Workers(Crowd):
    """Threads that claim, work, mark, fail, release and die, one that replays, and one that looks after the inbox."""

    def __init__(self, database, replays):
        super().__init__(database, self._look_after, *([self._replay] if replays else []))
        self._at_work: dict[str, str] = {}
        self.twice: list[str] = []

    def _once(self, session, name, chance):
        """A claim and what follows; false when the worker died of it."""
        if chance.random() < 0.3:
            return self._in_one_transaction(session, name, chance)
        ids = claim(session, chance.choice([1, 3, 10]), name)
        self._begun(ids, name)
        chance.shuffle(ids)
        if chance.random() < 0.1:
            with self._lock:
                self.deaths += 1
            self._ended(ids)
            end_lease(session, *ids)  # as time would, some day
            return False
        for event_id in ids:
            self._ended([event_id])
            self._one_of(session, name, chance, event_id)
        return True

    def _one_of(self, session, name, chance, event_id):
        what = chance.random()
        if what < 0.1:
            failed(session, event_id, name, 0)
        elif what < 0.2:
            call(session, "tide.inbox_release('commands', %s, %s)", [event_id], name)
        else:
            with session.transaction(force_rollback=what < 0.3):
                if processed(session, event_id, worker=name):
                    self._effect(session, event_id)
            if what < 0.3:
                failed(session, event_id, name, 0)

    def _in_one_transaction(self, session, name, chance):
        with contextlib.suppress(psycopg.OperationalError), session.transaction() as transaction:
            ids = claim(session, chance.choice([1, 5]), name)
            if chance.random() < 0.5:
                with contextlib.suppress(psycopg.Rollback), session.transaction():
                    claim(session, 3, name)
                    raise psycopg.Rollback
            for event_id in ids:
                assert processed(session, event_id, worker=name) == 1
                self._effect(session, event_id)
            if chance.random() < 0.1:
                session.close()
            elif chance.random() < 0.2:
                raise psycopg.Rollback(transaction)
        return not session.closed

    def _effect(self, session, event_id):
        session.execute("insert into effect (event_id, replayed) values (%s, false)", [event_id])

    def _begun(self, ids, name):
        """Of each aggregate one message is at work, of all workers together."""
        with self._lock:
            for event_id in ids:
                aggregate = str(int(event_id[1:]) % AGGREGATES)
                if aggregate in self._at_work:
                    self.twice.append(f"{event_id} beside {self._at_work[aggregate]}")
                self._at_work[aggregate] = event_id

    def _ended(self, ids):
        with self._lock:
            for event_id in ids:
                self._at_work.pop(str(int(event_id[1:]) % AGGREGATES), None)

    def _replay(self, chance):
        with self._database.connect() as session:
            while not self._stop.wait(0.01):
                ids = [f"m{chance.randrange(1, MESSAGES + 1)}" for _ in range(chance.choice([1, 30]))]
                with session.transaction():
                    done = session.execute(
                        "select event_id from tide.commands where event_id = any (%s) and processed_at is not null"
                        " order by event_id for update",
                        [ids],
                    ).fetchall()
                    again = [event_id for (event_id,) in done]
                    assert call(session, "tide.replay_inbox_messages('commands', %s)", again) == len(again)
                    session.execute("insert into effect (event_id, replayed) select unnest(%s::text[]), true", [again])

    def _look_after(self, chance):
        with self._database.connect() as session:
            while not self._stop.wait(0.02):
                call(session, "tide.inbox_status('commands')")
                call(session, "tide.inbox_health('commands')")
                call(session, "tide.inbox_retain('commands')")


def nothing_waits(db):
    return call(db, "count(*) from tide.commands_pending") == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_every_message_has_one_effect_and_one_more_for_each_replay(db, database, ordered):
    if ordered:
        call(db, "tide.enable_inbox_ordering('commands')")
    fill_many(db, MESSAGES, AGGREGATES)
    workers = Workers(database, replays=True)
    with workers.running(5):
        wait_until(lambda: call(db, "count(*) from effect where replayed") > 200, 60, "enough was replayed")
    rest(db)
    wrong = db.execute("""
        select m.event_id, count(*) filter (where not e.replayed), count(*) filter (where e.replayed)
          from tide.commands m left join effect e using (event_id)
         group by m.event_id
        having count(*) filter (where not e.replayed) <> 1 + count(*) filter (where e.replayed)""").fetchall()
    assert wrong == []
    assert workers.deaths > 0


def rest(db):
    """What the workers have left, by one more, when no worker holds a lease any more."""
    db.execute("update tide.commands set available_at = null, claimed_by = null where processed_at is null")
    while ids := claim(db, 100, "last"):
        for event_id in ids:
            assert processed(db, event_id, worker="last") == 1
            db.execute("insert into effect (event_id, replayed) values (%s, false)", [event_id])
    assert nothing_waits(db)


def test_an_aggregate_is_worked_on_by_one_at_a_time_and_in_its_order(db, database):
    call(db, "tide.enable_inbox_ordering('commands')")
    fill_many(db, MESSAGES, AGGREGATES)
    workers = Workers(database, replays=False)
    with workers.running(5):
        wait_until(lambda: nothing_waits(db), 60, "all is done")
    assert workers.twice == []
    effects = [row[0] for row in db.execute("select event_id from effect order by number")]
    assert sorted(effects) == sorted(f"m{number}" for number in range(1, MESSAGES + 1))
    for aggregate in range(AGGREGATES):
        mine = [int(event_id[1:]) for event_id in effects if int(event_id[1:]) % AGGREGATES == aggregate]
        assert mine == sorted(mine)


def test_lists_of_ids_in_any_order_and_length_do_not_block_each_other_for_good(db, database):
    fill_many(db, 2000)
    db.execute("analyze tide.commands")

    def change(seed):
        chance = random.Random(seed)
        ids = [f"m{number}" for number in range(1, 2001)]
        with database.connect() as session:
            for _ in range(60):
                some = chance.sample(ids, chance.choice([3, 50, 2000]))
                if chance.random() < 0.5:
                    processed(session, *some)
                else:
                    call(session, "tide.replay_inbox_messages('commands', %s)", some)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))  # a deadlock would be raised


# Costs ---------------------------------------------------------------------------------------------------------------


def pages(db, statement):
    """Pages that a statement touches, and its plan."""
    plan = db.execute("explain (analyze, buffers, format json, timing off) " + statement).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], json.dumps(plan)


@pytest.mark.parametrize("ordered", [False, True])
def test_what_waits_for_its_retry_costs_a_claim_nothing(db, ordered):
    db.execute("alter table tide.commands set (autovacuum_enabled = off)")
    if ordered:
        call(db, "tide.enable_inbox_ordering('commands')")
    db.execute("""
        insert into tide.commands (event_id, aggregate_id, event_sequence, retry_count, available_at)
        select 'm' || n, 'a' || n, n, 1, now() + interval '1 hour' from generate_series(1, 100000) n""")
    assert pages(db, "select * from tide.inbox_claim('commands', 'w', 100)")[0] < 1000
    db.execute("insert into tide.commands (event_id, aggregate_id, event_sequence) values ('new', 'b', 1)")
    assert claim(db) == ["new"]
    db.execute("vacuum analyze tide.commands")
    assert pages(db, "select * from tide.inbox_claim('commands', 'w', 100)")[0] < 1000
    row = db.execute("select pending, claimed, retrying from tide.inbox_status('commands')").fetchone()
    assert row == (100_001, 1, 100_000)


def test_a_claim_in_order_takes_no_more_locks_than_a_server_has(db):
    call(db, "tide.enable_inbox_ordering('commands')")
    fill_many(db, 3000, 3000)
    with db.transaction():
        assert len(claim(db, 10000)) == 1000
        assert call(db, "count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'") <= 1000
    assert len(claim(db, 10000)) == 1000


def test_arguments_that_are_null_are_refused_clearly(db):
    for arguments in ("'a', null", "'a', max_retries => null", "'a', with_stats => null"):
        with refused("22004", 'of inbox "a" must not be NULL', hint="Leave an argument out"):
            call(db, f"tide.inbox_create({arguments})")
    for rows in ("null", "0", "-1"):
        with refused("22023", "max_rows is"):
            call(db, f"tide.inbox_retain('commands', {rows})")
    call(db, "tide.enable_inbox_priority('commands', 'retry_count', null)")
    assert call(db, "priority_descending from tide.inbox where name = 'commands'")
