"""Outbox -> NATS JetStream through a real scheduler and real workers. Some of them are killed, and so is NATS."""

import json
import uuid
from functools import partial

import pytest

from tests.backends.nats.harness import NatsHarness
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.waiting import wait_until


@pytest.fixture
def outbox() -> str:
    return f"orders-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def pipelines(database, tmp_path):
    return Pipelines(database.url, tmp_path / "delivered")


@pytest.fixture
def fleet(database, redis_server, tmp_path):
    with running_fleet(database.url, redis_server.url, tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def stream(nats_server, outbox):
    stream = NatsHarness(nats_server)
    stream.stream = outbox
    return stream


@pytest.fixture
def nats_config(nats_server):
    """The password is where it belongs: in the environment of the workers, as TIDE_SECRET_NATS_PASSWORD."""
    return {
        "sink_type": "nats",
        "url": nats_server.url.replace(nats_server.password, "${env:TIDE_SECRET_NATS_PASSWORD}"),
        "create_stream": True,
        "visibility_timeout_ms": 3000,
    }


def test_a_killed_worker_and_a_killed_nats_cost_nothing_and_double_nothing(
    fleet, pipelines, stream, nats_server, nats_config, outbox
):
    subject = {"stream": outbox, "subject_template": "{outbox}.made", "wire_format": "raw"}
    pipelines.make(outbox, **nats_config, **subject, batch_size=50)
    fleet.scheduler()
    workers = fleet.workers(TIDE_SECRET_NATS_PASSWORD=nats_server.password)
    first = publish_one(pipelines, outbox, {"n": 1, "text": "Grüße, 世界"})
    with Writers(pipelines, [outbox], 1000) as writers:
        for number, victim in enumerate((workers, nats_server, workers), 1):
            wait_until(partial(writers.have_published, number * 700), 20, "more is published")
            victim.kill()
            victim.start()
    pipelines.wait_settled(60)
    ids = stream.ids()
    assert ids == sorted(set(ids)), "in order, each once"
    assert ids == pipelines.committed(outbox)
    assert pipelines.dead_letters(outbox) == []
    seen = stream.read_all()[ids.index(first)]
    assert json.loads(seen.body) == {"n": 1, "text": "Grüße, 世界"}
    assert (seen.headers["trace"], seen.headers["Nats-Msg-Id"]) == ("t1", f"{outbox}:{first}")
    assert nats_server.password not in workers.text()


def publish_one(pipelines: Pipelines, outbox: str, payload: dict) -> int:
    headers = '{"type": "created", "trace": "t1"}'
    publish = "select tide.outbox_publish(%s, %s::jsonb, %s::jsonb, 'key')"
    [(message_id,)] = pipelines.run(publish, outbox, json.dumps(payload), headers)
    return int(message_id)
