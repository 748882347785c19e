"""Outbox -> Redis Streams -> inbox through a real scheduler and real workers, some of which are killed."""

import uuid
from functools import partial

import pytest
from psycopg.types.json import Jsonb

from tests.backends.redis.harness import RedisHarness
from tests.backends.redis.server import DurableRedis
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.waiting import wait_until

INBOX = "arrived"


@pytest.fixture
def outbox():
    return f"orders-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pipelines(database, tmp_path):
    return Pipelines(database.url, tmp_path / "delivered")


@pytest.fixture
def fleet(database, redis_server, tmp_path):
    with running_fleet(database.url, redis_server.url, tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def streams(own_dirs):
    """Beside the broker's Redis, because it keeps what it acknowledged."""
    with DurableRedis(own_dirs()) as server:
        yield RedisHarness(server)


def url(streams):
    """The password is where it belongs: in the environment of the workers."""
    return streams.server.url.replace(streams.server.password, "${env:TIDE_SECRET_STREAMS_PASSWORD}")


def receive(pipelines, streams, stream):
    pipelines.run("select tide.inbox_create(%s)", INBOX)
    keys = {"source_type": "redis", "url": url(streams), "stream": stream, "create_stream": True}
    keys |= {"event_id": "{header.relay-id}", "visibility_timeout_ms": 3000}
    pipelines.run("select tide.relay_set_inbox(%s, %s, %s)", "back", INBOX, Jsonb(keys))


def rows(pipelines, what):
    return [row[0] for row in pipelines.run(f"select {what} from tide.{INBOX} order by inbox_seq")]


def test_killed_workers_and_a_killed_redis_cost_nothing_and_double_nothing(fleet, pipelines, streams, outbox):
    config = {"sink_type": "redis", "url": url(streams), "exactly_once": True}
    pipelines.make(outbox, **config, batch_size=50, visibility_timeout_ms=3000)
    receive(pipelines, streams, outbox)
    fleet.scheduler()
    workers = fleet.workers(TIDE_SECRET_STREAMS_PASSWORD=streams.server.password)
    payload, headers = {"text": "Grüße, 世界 🚀", "big": 2**80, "long": "x" * 500_000}, {"name": "Zoë 日本"}
    publish = "select tide.outbox_publish(%s, %s, %s, 'k')"
    [(first,)] = pipelines.run(publish, outbox, Jsonb(payload), Jsonb(headers | {"type": "created"}))
    with Writers(pipelines, [outbox], 1000) as writers:
        for number, victim in enumerate((workers, streams.server, workers), 1):
            wait_until(partial(writers.have_published, number * 700), 20, "more is published")
            victim.kill()
            victim.start()
    pipelines.wait_settled(60)
    committed = pipelines.committed(outbox)
    assert streams.ids(outbox) == committed, "in order, each once"
    wait_until(lambda: len(rows(pipelines, "event_id")) >= len(committed), 30, "all of them are in the inbox")
    assert rows(pipelines, "event_id") == [f"{outbox}:{number}" for number in committed]
    assert pipelines.dead_letters(outbox) == []
    [(found, beside)] = pipelines.run(
        f"select payload, headers from tide.{INBOX} where event_id = %s", f"{outbox}:{first}"
    )
    assert (found, beside["name"]) == (payload, headers["name"])
    assert streams.server.password not in workers.text()
