"""Lanes of a forward pipeline: which messages fall to each, and how their number changes."""

import random
from collections import defaultdict
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from relay.drains import lease, outbox
from relay.drains.fence import FencedSession, end
from relay.drains.lease import DrainResult, Lease
from relay.drains.outbox import Reader, Settlement
from relay.errors import Fenced
from relay.models import Drain, Message
from tests.sql.support import LEASE_MS, make_pipeline, relay_session

OWNER = UUID(int=7)
KEYS = [None, "", "a", "b", "ä", "customer/17", *(f"key {number}" for number in range(12))]


class Lanes:
    """A pipeline that is drained by hand, as a scheduler and its workers would do it."""

    def __init__(self, session) -> None:
        self.session = session
        self.number = 0
        self.delivered: dict[str | None, list[int]] = defaultdict(list)
        session.execute("update tide.drain set owner = %s", [OWNER])

    def change(self, lanes: int, owner: UUID = OWNER) -> bool:
        [(changed,)] = self.session.execute("select tide.lanes_change('p', %s, %s)", [owner, lanes]).fetchall()
        return bool(changed)

    def count(self) -> int:
        return len(self.session.execute("select from tide.drain where pipeline = 'p'").fetchall())

    def begin(self, lane: int) -> FencedSession:
        [(epoch,)] = self.session.execute("select epoch from tide.drain where lane = %s", [lane]).fetchall()
        self.number += 1
        drain = Drain("p", epoch, self.number, LEASE_MS)
        start = lease.begin(self.session, drain)
        assert start
        assert start.lane == lane
        return FencedSession(self.session, Lease(drain, LEASE_MS / 1000, 0.0), start)

    def deliver(self, lane: int, most: int = 1000) -> list[Message]:
        """One drain of a lane, of one batch at most; up to the horizon if that is empty."""
        fenced = self.begin(lane)
        reader = Reader(fenced, most)
        batch = reader.read(fenced.start.offset_id)
        reached = batch.messages[-1].id if batch.messages else batch.horizon
        reader.settle(Settlement(reached, len(batch.messages)))
        for message in batch.messages:
            self.delivered[message.key].append(message.id)
        end(self.session, fenced.lease.drain, DrainResult("more" if batch.messages else "idle"))
        return batch.messages

    def to_end(self) -> None:
        for lane in range(self.count()):
            while self.deliver(lane):
                pass


@pytest.fixture
def lanes(database):
    make_pipeline(database)
    with relay_session(database.url) as session:
        yield Lanes(session)


@pytest.fixture
def publish(database):
    with database.connect() as connection:

        def publish(*keys: str | None) -> list[int]:
            rows = connection.execute(
                "select tide.outbox_publish_many('orders', %s, %s)", [[Jsonb({})] * len(keys), list(keys)]
            ).fetchall()
            return list(rows[0][0])

        yield publish


def test_a_key_has_one_lane_and_messages_without_a_key_have_the_first(lanes):
    placed = dict(lanes.session.execute("select k, tide.lane_of(k, 4) from unnest(%s::text[]) k", [KEYS]).fetchall())
    assert placed[None] == 0
    assert set(placed.values()) == {0, 1, 2, 3}
    spread = lanes.session.execute(
        "select tide.lane_of('key ' || i, 64) as lane, count(*) from generate_series(1, 64000) i group by 1"
    ).fetchall()
    assert len(spread) == 64
    assert all(800 < number < 1200 for _, number in spread)


def test_each_lane_reads_its_own_in_order_and_together_they_read_everything(lanes, publish):
    published = publish(*KEYS, *KEYS)
    assert lanes.change(4)
    found = [[message.id for message in lanes.deliver(lane)] for lane in range(4)]
    assert sorted(number for ids in found for number in ids) == published
    assert all(ids == sorted(ids) and ids for ids in found)
    assert all(len(ids) == 2 for key, ids in lanes.delivered.items() if key is not None)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_number_of_lanes_becomes_each_message_comes_once_and_in_the_order_of_its_key(lanes, publish, seed):
    chance = random.Random(seed)
    expected: dict[str | None, list[int]] = defaultdict(list)
    for _ in range(60):
        keys = [chance.choice(KEYS) for _ in range(chance.randrange(6))]
        for key, number in zip(keys, publish(*keys) if keys else [], strict=True):
            expected[key].append(number)
        for _ in range(chance.randrange(4)):
            lanes.deliver(chance.randrange(lanes.count()), chance.randrange(1, 9))
        if chance.random() < 0.3:
            assert lanes.change(chance.choice([1, 2, 3, 4, 8]))
    lanes.to_end()
    assert lanes.delivered == expected


def test_what_was_settled_before_is_forgotten_once_all_lanes_are_beyond_it(lanes, publish):
    publish(*KEYS)
    lanes.change(4)
    lanes.deliver(1)
    lanes.change(2)
    [(past,)] = lanes.session.execute("select past from tide.consumer_group where lane = 0").fetchall()
    assert [layout["lanes"] for layout in past] == [4]
    lanes.to_end()
    publish("a")
    assert lanes.begin(0).start.past == past, "it is kept"
    lanes.session.execute("update tide.drain set lease_until = null")
    lanes.change(3)
    assert lanes.session.execute("select distinct past from tide.consumer_group").fetchall() == [([],)]


def test_no_lane_comes_or_goes_while_one_of_them_has_its_lease(lanes):
    lanes.change(2)
    fenced = lanes.begin(1)
    assert not lanes.change(3)
    assert lanes.count() == 2
    end(lanes.session, fenced.lease.drain, DrainResult("idle"))
    assert lanes.change(3)


def test_a_drain_whose_lease_ran_out_is_fenced_by_the_change(lanes, publish):
    publish("a", "b")
    lanes.change(2)
    late = lanes.begin(0)
    lanes.session.execute("update tide.drain set lease_until = clock_timestamp() - interval '1 ms' where lane = 0")
    assert lanes.change(4)
    with pytest.raises(Fenced):
        Reader(late, 10).settle(Settlement(2, 2))


def test_only_the_scheduler_that_owns_the_pipeline_changes_its_lanes(lanes):
    assert not lanes.change(2, uuid4())
    assert lanes.count() == 1


def test_a_lane_passes_over_many_ids_of_others_a_part_at_a_time(lanes, publish, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_IDS", 10)
    publish(*["a"] * 35, "b")
    [(a, b)] = lanes.session.execute("select tide.lane_of('a', 2), tide.lane_of('b', 2)").fetchall()
    assert a != b
    lanes.change(2)
    fenced = lanes.begin(b)
    reader, reached = Reader(fenced, 100), []
    batch = reader.read(0)
    while not batch.messages:
        assert batch.ends_early
        reached.append(batch.horizon)
        batch = reader.read(batch.horizon)
    assert reached == [10, 20, 30]
    assert [message.id for message in batch.messages] == [36]


def test_retention_replays_and_lists_go_by_the_slowest_lane(lanes, publish):
    published = publish(*KEYS)
    lanes.change(4)
    for lane in (0, 1, 3):
        while lanes.deliver(lane):
            pass
    session = lanes.session
    settled = session.execute("select offset_id from tide.consumer_group where lane = 2").fetchall()
    assert settled == [(0,)]
    held = session.execute("select consumer_group, settled_id from tide.outbox_holds('orders')").fetchall()
    assert held == [("p", 0)]
    status = session.execute("select consumer_groups, slowest_group, lag from tide.outbox_status('orders')").fetchall()
    assert status == [(1, "p", published[-1])]
    with pytest.raises(Exception, match="is no range of ids"):
        session.execute("select tide.relay_replay('p', 1, null)")


def test_a_pipeline_that_goes_to_another_group_gets_its_lanes_there_again(lanes, publish):
    publish("a")
    lanes.change(4)
    lanes.session.execute(
        "select tide.relay_set_outbox('p', 'orders', 'other', '{\"sink_type\": \"memory\", \"lanes\": 4}')"
    )
    rows = "select name, lane, lanes from tide.consumer_group order by lane"
    assert lanes.session.execute(rows).fetchall() == [("other", 0, 1)]
    assert lanes.change(4)
    assert lanes.session.execute(rows).fetchall() == [("other", lane, 4) for lane in range(4)]
    assert lanes.count() == 4
