"""There and back again: through the sink of each system, out of it by its source, into an inbox; each message once,
equal as JSON, with key and headers, in the order that is promised, and once even if it was sent twice."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from psycopg.types.json import Jsonb

from relay.backends.registry import SINKS, SOURCES
from relay.local.servers import EmbeddedRedis
from relay.wire.encode import FORMATS
from tests.e2e import systems
from tests.e2e.drains import Drains, draining
from tests.e2e.systems import LARGE, System
from tests.e2e.trips import assert_arrived, messages, publish
from tests.services.nats import NatsServer
from tests.services.postgres import Database, PostgresServer
from tests.web.api import ApiProcess, running_api


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    """One for all trips: each has an outbox and an inbox of its own name."""
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def other_database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


@pytest.fixture(scope="module")
def large_nats_server(run_dir: Path) -> Iterator[NatsServer]:
    """Takes messages of more than a megabyte, unlike the session's."""
    with NatsServer(run_dir / "nats-large", max_payload_bytes=8 * LARGE) as server:
        yield server


@pytest.fixture
def large_redis_server(redis_server: EmbeddedRedis) -> EmbeddedRedis:
    """Takes what Redis takes unless it is told otherwise, as another test may have done."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("proto-max-bulk-len", 512 * LARGE)
    return redis_server


@pytest.fixture(scope="module")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with running_api(database, tmp_path_factory.mktemp("api")) as running:
        yield running


SYSTEMS: dict[str, tuple[Callable[[Any], System], str]] = {
    "nats": (systems.nats, "large_nats_server"),
    "kafka": (systems.kafka, "kafka_server"),
    "redis": (systems.redis, "large_redis_server"),
    "rabbitmq": (systems.rabbitmq, "rabbitmq_server"),
    "sqs": (systems.sqs, "moto_server"),
    "sqs_fifo": (systems.sqs_fifo, "moto_server"),
    "file": (systems.file, "tmp_path"),
    "webhook": (systems.webhook, "api"),
    "inbox": (lambda _: systems.inbox(), "database"),
    "remote_inbox": (systems.inbox, "other_database"),
}
"""How to reach each, and the fixture that this needs."""

WAYS = [
    ("nats", "cloudevents"), ("kafka", "cloudevents"), ("redis", "envelope"), ("rabbitmq", "cloudevents"),
    ("sqs", "cloudevents_structured"), ("sqs_fifo", "raw"), ("file", "debezium"), ("webhook", "cloudevents"),
    ("inbox", "raw"), ("remote_inbox", "raw"),
]  # fmt: skip
"""Each system once, in the format that it has most to do with: an event's attributes are headers of its own kind there.
How each format travels with headers and without, whatever the system: tests/wire/test_round_trip.py."""


@pytest.mark.parametrize(("system_name", "wire_format"), WAYS)
def test_everything_comes_back_as_it_was(
    request: pytest.FixtureRequest, database: Database, drains: Drains, system_name: str, wire_format: str
) -> None:
    make_system, needed = SYSTEMS[system_name]
    system = make_system(request.getfixturevalue(needed))
    name = f"{system_name}_{wire_format}"
    inbox = f"from_{name}"
    target = request.getfixturevalue("other_database") if system_name.startswith("remote") else database
    sent = messages(system, wire_format)
    publish(database, name, sent)
    make(database, target, name, *system.configs(name, wire_format))
    if system_name == "webhook":
        request.getfixturevalue("api").wait_for(inbox)
    for _ in range(2):
        # The second time as after a crash in the worst moment: everything is sent again.
        drains.until_idle(f"to-{name}")
        receive(drains, target, inbox, len(sent), is_drained=bool(system.source) and system_name != "webhook")
        assert_arrived(database, target, name, inbox, system, wire_format)
        drains.query("update tide.consumer_group set offset_id = 0 where name = %s", f"to-{name}")
    dead = "select message_id, code, reason from tide.dead_letter where pipeline in (%s, %s)"
    assert drains.query(dead, f"to-{name}", inbox) == []


def test_every_sink_and_every_source_makes_the_trip() -> None:
    made = {name.removeprefix("remote_").partition("_")[0] for name, _ in WAYS}
    assert SINKS.keys() - made == {"memory", "stdout", "object_storage"}, "these two: test_round_trips_others.py"
    assert SOURCES.keys() - made == {"memory", "stdin", "outbox"}, "these two: test_round_trips_others.py"
    assert {wire_format for _, wire_format in WAYS} == FORMATS.keys()


def make(database: Database, target: Database, name: str, sink: dict[str, Any], source: dict[str, Any]) -> None:
    """The inbox, and the pipelines there and back."""
    with target.connect() as connection:
        connection.execute("select tide.inbox_create(%s)", [f"from_{name}"])
    with database.connect() as connection:
        connection.execute("select tide.relay_set_outbox(%s, %s, %s)", [f"to-{name}", name, Jsonb(sink)])
        if "source_type" in source:
            connection.execute(
                "select tide.relay_set_inbox(%s, %s, %s)", [f"from_{name}", f"from_{name}", Jsonb(source)]
            )


def receive(drains: Drains, target: Database, inbox: str, count: int, *, is_drained: bool) -> None:
    """Until so many rows are in the inbox, and nothing more comes."""

    def is_all() -> bool:
        with target.connect() as connection:
            row = connection.execute(f"select count(*) from tide.{inbox}").fetchone()
        return row is not None and row[0] >= count

    if is_drained:
        drains.until(inbox, is_all)
        drains.drain(inbox)
    else:
        assert is_all()
