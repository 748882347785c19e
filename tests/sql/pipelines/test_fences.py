"""Fences: a drain that was abandoned writes nothing, anywhere."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from relay.drains import lease
from relay.drains.fence import FencedSession, end
from relay.drains.lease import DrainResult, Lease
from relay.drains.outbox import Reader, Settlement
from relay.drains.redelivery import Redeliveries, RedeliveryBatch
from relay.errors import Fenced
from relay.masking import MOST_CHARACTERS
from relay.models import Drain, Failure
from tests.sql.support import LEASE_MS, begin, make_pipeline, publish_many, relay_session, run
from tests.waiting import wait_until

TABLES = ("outbox", "consumer_group", "bell", "pipeline", "drain", "dead_letter", "position", "replay", "scheduler")
WRONG = [{"epoch": 4}, {"epoch": 6}, {"number": 2}, {"number": 4}, {"pipeline": "other"}]
DEAD = Settlement(2, 1, ((1, Failure(0, True, "rejected", "no")),))


@pytest.fixture
def session(database):
    """A relay's session; pipeline `p` is in epoch 5, and drain 3 of it is to begin."""
    make_pipeline(database)
    with database.connect() as owner:
        owner.execute("select setval('tide.epochs', 5)")
        owner.execute("update tide.drain set epoch = 5, number = 2")
        publish_many(owner, 5)
    with relay_session(database.url) as connection:
        yield connection


@pytest.fixture
def snapshot(database):
    """Everything that is stored but messages, to compare."""
    with database.connect() as owner:
        yield lambda: {table: owner.execute(f"select * from tide.{table} order by 1").fetchall() for table in TABLES}


def drain(**changes):
    return replace(Drain("p", 5, 3, LEASE_MS), **changes)


def test_begin_takes_the_lease_and_says_what_to_do(session):
    start = lease.begin(session, drain())
    assert (start.direction, start.outbox, start.offset_id, start.revision, start.failures) == (
        "forward",
        "orders",
        0,
        1,
        0,
    )
    assert start.config == {"sink_type": "memory"}
    row = session.execute("select number, lease_until - clock_timestamp() from tide.drain").fetchone()
    assert row[0] == 3
    assert LEASE_MS / 1000 - 10 < row[1].total_seconds() <= LEASE_MS / 1000


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 4}, {"epoch": 6}, {"number": 2}, {"number": 1}, {"pipeline": "missing"}],
    ids=["old epoch", "epoch not begun", "same number", "old number", "deleted"],
)
def test_stale_and_doubled_drains_do_not_begin(session, snapshot, changes):
    before = snapshot()
    assert lease.begin(session, drain(**changes)) is None
    assert snapshot() == before


def test_a_message_that_comes_twice_begins_once(database, session):
    def begin_one(_):
        with relay_session(database.url) as connection:
            return lease.begin(connection, drain())

    with ThreadPoolExecutor(4) as pool:
        starts = list(pool.map(begin_one, range(4)))
    assert sum(start is not None for start in starts) == 1


def test_a_disabled_pipeline_does_not_begin(session, snapshot):
    session.execute("select tide.relay_disable('p')")
    before = snapshot()
    assert lease.begin(session, drain()) is None
    assert snapshot() == before


def test_no_drain_begins_while_another_holds_the_lease(session, snapshot):
    begin(session, number=3, epoch=5)
    before = snapshot()
    assert lease.begin(session, drain(number=4)) is None
    assert snapshot() == before


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_no_write_of_a_wrong_drain_changes_anything(session, snapshot, changes):
    start = begin(session, number=3, epoch=5).start
    stale = Lease(drain(**changes), 60, 0)
    fenced = FencedSession(session, stale, start)
    reader, redeliveries = Reader(fenced, 10), Redeliveries(fenced)
    for armed in (True, False):
        session.execute("update tide.bell set armed = %s", [armed])
        before = snapshot()
        with pytest.raises(Fenced, match="was abandoned"):
            reader.settle(DEAD)
        with pytest.raises(Fenced):
            reader.read(2, DEAD, "arm")
        with pytest.raises(Fenced):
            reader.read(2, DEAD, "disarm")
        with pytest.raises(Fenced), fenced.transaction():
            reader.settle_inside(DEAD)
        with pytest.raises(Fenced):
            reader.plan(0, 2)
        with pytest.raises(Fenced):
            redeliveries.settle_dead_letters([1], [(2, DEAD.dead[0][1])])
        with pytest.raises(Fenced):
            redeliveries.settle_replay(RedeliveryBatch([], "orders", (), 1, 3), [1], DEAD.dead)
        with pytest.raises(Fenced, match="was abandoned"):
            end(session, stale.drain, DrainResult("idle"))
        reader.read(2, None, "arm")
        reader.read(2, None, "disarm")
        assert snapshot() == before


def test_a_fenced_settle_does_not_seem_to_renew_the_lease(session):
    start = begin(session, number=3, epoch=5).start
    stale = Lease(drain(epoch=4), 60, -1000)
    with pytest.raises(Fenced):
        Reader(FencedSession(session, stale, start), 10).settle(DEAD)
    assert not stale.covers(0)


def test_dead_letters_are_kept_whole(database, session):
    with database.connect() as owner:
        owner.execute("select tide.outbox_publish('orders', '{\"n\": [1]}', '{\"type\": \"t\"}', 'k')")
    fenced = begin(session, number=3, epoch=5)
    reader = Reader(fenced, 10)
    reader.settle(Settlement(6, 5, ((6, Failure(5, True, "too_large", "9 bytes; 8 at most")),)))
    row = session.execute("""
        select d.pipeline, d.outbox, d.message_id, d.key, d.headers, d.payload, d.published_at = m.created_at,
               d.code, d.reason
          from tide.dead_letter d join tide.message m on m.id = d.message_id""").fetchall()
    assert row == [("p", "orders", 6, "k", {"type": "t"}, {"n": [1]}, True, "too_large", "9 bytes; 8 at most")]
    assert session.execute("select delivered, dead_letters from tide.drain").fetchone() == (5, 1)


def test_a_dead_letter_is_kept_once_however_often_it_is_settled(session):
    fenced = begin(session, number=3, epoch=5)
    reader = Reader(fenced, 10)
    reader.settle(DEAD)
    reader.settle(replace(DEAD, dead=((1, Failure(0, True, "other", "later")), (2, Failure(1, True, "no", "no")))))
    assert session.execute("select message_id, code, attempts from tide.dead_letter order by 1").fetchall() == [
        (1, "other", 2),
        (2, "no", 1),
    ]


def test_the_offset_never_goes_back(session):
    fenced = begin(session, number=3, epoch=5)
    reader = Reader(fenced, 10)
    reader.settle(Settlement(4, 4))
    reader.settle(Settlement(2, 0))
    assert session.execute("select offset_id from tide.consumer_group").fetchone() == (4,)


def test_a_settle_renews_the_lease(session):
    fenced = begin(session, number=3, epoch=5)
    session.execute("update tide.drain set lease_until = now() - interval '1 hour'")
    Reader(fenced, 10).settle(Settlement(1, 1))
    assert session.execute("select lease_until > now() from tide.drain").fetchone() == (True,)


def test_the_end_gives_the_lease_back_and_tells_the_owner(database, session):
    fenced = begin(session, number=3, epoch=5)
    with database.connect() as owner:
        owner.execute("listen tide_relay_drain")
        end(session, fenced.lease.drain, DrainResult("failed", True, 1.5, 2, "timeout", "x" * 30_000))
        [heard] = owner.notifies(timeout=10, stop_after=1)
        assert heard.payload == "p", "the rest is in the row"
    row = session.execute("""
        select lease_until, outcome, progressed, failures, error_code, length(error), retry_at > ended_at,
               error_at is not null
          from tide.drain""").fetchone()
    assert row == (None, "failed", True, 2, "timeout", MOST_CHARACTERS, True, True)


def test_a_good_end_clears_what_went_wrong_before(session):
    fenced = begin(session, number=3, epoch=5)
    end(session, fenced.lease.drain, lease.failed(0, "timeout", "slow"))
    fenced = begin(session, number=4, epoch=5)
    assert fenced.start.failures == 1
    end(session, fenced.lease.drain, DrainResult("idle"))
    row = session.execute("select failures, error_code, error, retry_at from tide.drain").fetchone()
    assert row == (0, None, None, None)


def test_a_drain_ends_once(session):
    """The second end would tell the owner of a drain that is over."""
    fenced = begin(session, number=3, epoch=5)
    end(session, fenced.lease.drain, DrainResult("idle"))
    assert lease.begin(session, fenced.lease.drain) is None
    begin(session, number=4, epoch=5)
    with pytest.raises(Fenced):
        end(session, fenced.lease.drain, DrainResult("idle"))


class TestEpochs:
    """An epoch is raised by its owner, and only while no lease runs."""

    @pytest.fixture
    def owner(self, session):
        owner = uuid4()
        session.execute("update tide.drain set owner = %s", [owner])
        return owner

    def raise_(self, session, owner):
        rows = run(session, "epoch_raise", names=["p", "missing"], lanes=[1, 1], scheduler_id=owner).fetchall()
        assert [row[0] for row in rows] == ["p"]
        return rows[0][1:4]

    def test_no_lease_runs(self, session, owner):
        assert self.raise_(session, owner) == (6, None, None)
        assert session.execute("select epoch, number, lease_until from tide.drain").fetchone() == (6, 0, None)

    def test_a_lease_runs(self, session, owner, snapshot):
        begin(session, number=3, epoch=5)
        before = snapshot()
        epoch, _, lease_seconds = self.raise_(session, owner)
        assert epoch is None
        assert LEASE_MS / 1000 - 10 < lease_seconds <= LEASE_MS / 1000
        assert snapshot() == before

    def test_the_lease_ran_out(self, session, owner):
        fenced = begin(session, number=3, epoch=5)
        session.execute("update tide.drain set lease_until = clock_timestamp() - interval '1 ms'")
        assert self.raise_(session, owner)[0] == 6
        with pytest.raises(Fenced):
            Reader(fenced, 10).settle(Settlement(1, 1))

    def test_somebody_else_owns_it(self, session, owner, snapshot):
        before = snapshot()
        assert run(session, "epoch_raise", names=["p"], lanes=[1], scheduler_id=uuid4()).fetchall() == []
        assert snapshot() == before

    def test_the_retry_time_survives_the_new_epoch(self, session, owner):
        fenced = begin(session, number=3, epoch=5)
        end(
            session,
            fenced.lease.drain,
            DrainResult("failed", retry_seconds=100.0, failures=1, error_code="timeout", error="slow"),
        )
        assert 90 < self.raise_(session, owner)[1] <= 100

    @pytest.mark.parametrize("begins", [True, False], ids=["begins", "ends"])
    def test_a_drain_that_begins_or_ends_at_that_moment_is_seen_as_it_is(self, database, session, owner, begins):
        """Either a new epoch, or the rest of the lease: a scheduler that gets neither does not know when to come."""
        if not begins:
            begin(session, number=3, epoch=5)
        with relay_session(database.url) as worker, ThreadPoolExecutor(1) as pool:
            worker.execute("begin")
            if begins:
                run(worker, "drain_begin", pipeline="p", epoch=5, number=3, lease_seconds=LEASE_MS / 1000)
            else:
                end(worker, drain(), DrainResult("idle"))
            raising = pool.submit(self.raise_, session, owner)
            wait_until(lambda: worker.execute("select from pg_locks where not granted").rowcount)
            worker.execute("commit")
            epoch, _, lease_seconds = raising.result()
        assert (epoch is None) == begins
        assert (lease_seconds is not None) == begins


def test_whatever_an_error_says_a_drain_ends_and_a_dead_letter_is_kept(session, snapshot):
    fenced = begin(session, number=3, epoch=5)
    odd = Failure(0, True, "rejected", "NUL \0 and \ud800")
    Reader(fenced, 10).settle(Settlement(1, 0, ((1, odd),)))
    end(session, drain(), lease.failed(0, "odd", odd.reason))
    assert snapshot()["dead_letter"][0]
    assert session.execute("select error from tide.drain").fetchone() == ("NUL \ufffd and ?",)
