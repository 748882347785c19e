"""Lanes in a fleet that runs: each is owned and drained on its own, and their number changes meanwhile."""

import itertools
from functools import partial

import pytest
import redis
from psycopg.types.json import Jsonb

from relay.settings import Settings
from scheduler.catalog import Catalog
from scheduler.session import Session
from tests.faults.audit import read_publishes
from tests.fleets.pipelines import KEYS, Writers
from tests.waiting import wait_until


@pytest.fixture
def scheduler(fleet):
    scheduler, _ = fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1h", TEST_MEASURE_SECONDS="0.2"), fleet.workers()
    fleet.wait_ready()
    return scheduler


def test_the_catalog_has_a_spec_for_each_lane_and_forgets_those_that_go(make, database):
    with Session(Settings.load(postgres_url=database.url)) as session:
        catalog = Catalog("default")

        def read() -> set[str]:
            list(catalog.read(session))
            return catalog.take_changed()

        make("a", lanes=3)
        make("b")
        assert read() == {"a", "a/1", "a/2", "b"}
        assert [catalog.specs[name].pipeline for name in ("a", "a/1", "a/2")] == ["a"] * 3
        make("a", lanes=2)
        assert read() == {"a", "a/1", "a/2"}
        assert sorted(catalog.specs) == ["a", "a/1", "b"]
        assert catalog.groups == {"a": "", "b": ""}, "a pipeline counts once"


def owned(scheduler, lanes: int) -> bool:
    return scheduler.owned() == lanes


def publish_keyed(pipelines, count: int) -> dict[str | None, list[int]]:
    """So many messages with each key, and without one."""
    found: dict[str | None, list[int]] = {key: [] for key in KEYS}
    for _ in range(count):
        [(ids,)] = pipelines.run(
            "select tide.outbox_publish_many('orders', array_fill('{}'::jsonb, array[%s]), %s)", len(KEYS), list(KEYS)
        )
        for key, number in zip(KEYS, ids, strict=True):
            found[key].append(number)
    return found


def test_a_lane_that_stands_still_does_not_stop_the_others(scheduler, pipelines):
    pipelines.make("orders", lanes=4, batch_size=10)
    sent = publish_keyed(pipelines, 5)
    lane_of = dict(pipelines.run("select k, tide.lane_of(k, 4) from unnest(%s::text[]) k", list(KEYS)))
    blocked = lane_of["customer 1"]
    assert 0 < sum(lane == blocked for lane in lane_of.values()) < len(KEYS)
    pipelines.control("orders", stop_at=sent["customer 1"][0])
    others = [number for key, ids in sent.items() if lane_of[key] != blocked for number in ids]
    pipelines.wait_delivered("orders", others)
    waiting = set(sent["customer 1"])
    assert not waiting & set(pipelines.delivered("orders"))

    rows = "select offset_id from tide.consumer_group where lane = %s"
    wait_until(lambda: pipelines.run(rows, (blocked + 1) % 4)[0][0] == max(others + list(waiting)), 20, "others settle")
    assert pipelines.run(rows, blocked)[0][0] < min(waiting)

    def lag():
        return scheduler.metric("tide_relay_lag_messages", pipeline="orders")

    wait_until(lambda: (lag() or 0) >= len(waiting), 20, "the lag is that of the slowest lane")
    pipelines.control("orders")
    pipelines.wait_settled()
    wait_until(lambda: lag() == 0, 20, "nothing waits")
    assert pipelines.judge("orders").is_right


def test_lanes_come_and_go_under_load_and_each_key_keeps_its_order(scheduler, pipelines):
    pipelines.make("orders", lanes=1, batch_size=20)
    pipelines.control("orders", delay_ms=5)
    with Writers(pipelines, ["orders"], 1000) as writers:
        for lanes in (4, 8, 3, 1):
            pipelines.set("orders", lanes=lanes, batch_size=20)
            wait_until(partial(owned, scheduler, lanes), 20, f"{lanes} lanes are owned")
            wait_until(partial(writers.have_published, writers.published + 300), 20, "they are used")
    pipelines.wait_settled()
    verdict = pipelines.judge("orders")
    assert verdict.is_right and verdict.duplicates == 0, verdict
    begun = read_publishes(pipelines.folder, "orders")
    overlapping = sum(later.begun_ns < (earlier.ended_ns or 0) for earlier, later in itertools.pairwise(begun))
    assert overlapping > 0, "several drains worked at a time"
    assert pipelines.run("select lane from tide.drain") == [(0,)]


def test_lanes_of_a_source_share_it_and_fewer_of_them_lose_nothing(scheduler, pipelines, redis_server):
    pipelines.run("select tide.inbox_create('events')")
    config = {"source_type": "redis", "url": redis_server.url, "stream": "events", "group": "relay", "batch_size": 10,
              "slice_ms": 500, "claim_idle_ms": 1000, "create_stream": True}  # fmt: skip

    def lanes(count: int) -> None:
        pipelines.run("select tide.relay_set_inbox('in', 'events', %s)", Jsonb(config | {"lanes": count}))
        wait_until(partial(owned, scheduler, count), 20, f"{count} lanes are owned")

    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        with redis.Redis.from_url(redis_server.url) as client:
            for sent in range(sent + 1, sent + count + 1):  # noqa: B020
                client.xadd("events", {"body": f'{{"n": {sent}}}'})

    def each_had_some() -> bool:
        send(20)
        return len(pipelines.run("select lane from tide.drain where pipeline = 'in' and delivered > 0")) == 3

    def all_came() -> bool:
        stored = pipelines.run("select (payload ->> 'n')::int from tide.events order by 1")
        return [row[0] for row in stored] == list(range(1, sent + 1))

    lanes(3)
    wait_until(each_had_some, 30, "each lane had some")
    wait_until(all_came, 30, "each came once")
    send(50)
    lanes(1)
    send(50)
    wait_until(all_came, 30, "each came once")
