"""There and back again through a real scheduler and real workers, all systems at a time."""

from dataclasses import replace
from functools import partial

import pytest
from psycopg.types.json import Jsonb

from relay.local.servers import EmbeddedRedis
from tests.e2e import systems
from tests.e2e.systems import System
from tests.e2e.trips import assert_arrived, messages, publish
from tests.fleets.processes import running_fleet
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

LARGE_BYTES = 900_000
"""NATS takes a megabyte with all headers, unless it is told otherwise."""


@pytest.fixture
def all_systems(
    nats_server: NatsServer,
    kafka_server: KafkaServer,
    rabbitmq_server: RabbitmqServer,
    redis_server: EmbeddedRedis,
    moto_server: MotoServer,
) -> dict[str, System]:
    return {
        "nats_fleet": systems.nats(nats_server),
        "kafka_fleet": systems.kafka(kafka_server),
        "kafka_once_fleet": systems.kafka(kafka_server, transactional=True),
        "rabbitmq_fleet": systems.rabbitmq(rabbitmq_server),
        "redis_fleet": systems.redis(redis_server),
        "sqs_fleet": soon_again(systems.sqs(moto_server)),
        "inbox_fleet": systems.inbox(),
    }


def soon_again(sqs: System) -> System:
    """What a killed worker held comes again after two seconds."""
    return replace(sqs, source={**sqs.source, "visibility_timeout": 2})


def test_everything_comes_back_while_the_workers_are_killed(
    all_systems: dict[str, System], database: Database, redis_server: EmbeddedRedis, tmp_path_factory
) -> None:
    first = next(iter(all_systems.values()))
    sent = [m for m in messages(first, "raw") if len(m.payload) <= LARGE_BYTES]
    with database.connect() as db:
        for name, system in all_systems.items():
            publish(database, name, sent)
            db.execute("select tide.inbox_create(%s)", [f"from_{name}"])
            there, back = system.configs(name, "raw")
            quick = {"visibility_timeout_ms": 3000, "batch_size": 20, "timeout_ms": 1400}
            db.execute("select tide.relay_set_outbox(%s, %s, %s)", [f"to_{name}", name, Jsonb(there | quick)])
            if system.source:
                keys = Jsonb(back | {"slice_ms": 1000, "visibility_timeout_ms": 3000, "timeout_ms": 1400})
                db.execute("select tide.relay_set_inbox(%s, %s, %s)", [f"from_{name}", f"from_{name}", keys])

        def arrived(name: str) -> int:
            row = db.execute(f"select count(*) from tide.from_{name}").fetchone()
            return int(row[0])

        with running_fleet(database.url, redis_server.url, tmp_path_factory.mktemp("fleet")) as fleet:
            fleet.scheduler()
            workers = fleet.workers()
            wait_until(lambda: sum(map(arrived, all_systems)) > len(sent), 60, "messages arrive")
            workers.kill()
            workers.start()
            for name in all_systems:
                wait_until(partial(lambda name: arrived(name) >= len(sent), name), 60, f"all of {name} arrived")
            fenced = fleet.fenced()
        assert db.execute("select pipeline, code, reason from tide.dead_letter").fetchall() == []
    for name, system in all_systems.items():
        # On a busy machine a drain may outlive its lease: what it received from a source without positions comes late.
        judged = replace(system, order="none") if f"from_{name}" in fenced else system
        assert_arrived(database, database, name, f"from_{name}", judged, "raw")
