"""The services that tests run on: real ones, private to this run (to each worker of it), started when first used.

Session-wide: `postgres`, `postgres16`, `redis_server`, `nats_server`, `rabbitmq_server`, `moto_server`, `kafka_server`,
`apache_kafka`. A test may stop or restart one: it is started again for the next test that asks for it. For more than
that, a test makes servers of its own with `own_postgres()`, `own_redis()`, `own_nats()`, `own_rabbitmq()`,
`own_moto()`.
"""

import fcntl
import gc
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from relay import known_secrets, reach
from relay.local import server_process
from relay.local.own_folder import is_ours
from relay.local.servers import EmbeddedRedis
from relay.reach import Reach
from tests.fleets.fixtures import bench, fleet, pipelines, store  # noqa: F401  fixtures of all tests
from tests.paths import REACH
from tests.services.apache_kafka import ApacheKafka
from tests.services.http_receiver import HttpReceiver
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.own import (  # noqa: F401  fixtures of all tests
    own_dirs,
    own_http_receiver,
    own_kafka,
    own_moto,
    own_nats,
    own_postgres,
    own_rabbitmq,
    own_redis,
    started_postgres,
)
from tests.services.postgres import Database, PostgresServer
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitmqServer
from tests.services.redis import EMBEDDED, name_of, program_of

NEWEST = 18

# A property may take as long as it takes: no test asserts a time, and a machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Each test process has ports of its own, also beside another run on the same machine."""
    server_process.ports = itertools.cycle(own_ports())
    os.environ |= REACH
    # The tests start hundreds of programs: none compiles again what another has compiled, wherever that is off.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


@pytest.fixture(autouse=True)
def _as_a_new_process() -> None:
    """Each test begins with what `REACH` says and knows no secret, whatever the one before has loaded."""
    known_secrets.forget_all()
    everywhere = ("/",)
    reach.put_in_force(Reach(secret_folders=everywhere, sink_folders=everywhere, source_folders=everywhere))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[Any]:
    """What collecting makes stays until the end: the garbage collector, which would take a third of the time of
    collecting, is off meanwhile, and passes over it from then on."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that start a server: all servers of a run need its folder."""
    for item in items:
        if "run_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.service)


def refuse_unmarked(items: list[pytest.Item]) -> None:
    """A server is asked for, though no test of this run is marked: one asks by `getfixturevalue`, unseen before."""
    if not any(item.get_closest_marker("service") for item in items):
        pytest.fail("a test that starts a server takes the fixture `run_dir`, which marks it as one that does")


def own_ports() -> range:
    """A thousand ports that no other test process uses: the lock on the file of the range ends with this process."""
    folder = Path(f"/tmp/tide-test-ports-{os.getuid()}")  # one place for all runs, whatever TMPDIR is
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_ours(folder.lstat()):
        raise pytest.UsageError(f"{folder} belongs to another user")
    for first in range(10_000, 32_000, 1000):
        descriptor = os.open(folder / str(first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return range(first, first + 1000)
    raise pytest.UsageError("22 test processes run on this machine: no ports are left")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on the newest PostgreSQL; those marked `each_postgres` on the oldest of the wheels too.

    `TEST_POSTGRES="14 15"` runs all of them on these versions instead.
    """
    if "pg" in metafunc.fixturenames:
        each = metafunc.definition.get_closest_marker("each_postgres")
        usual = [NEWEST, 16] if each else [NEWEST]
        versions = [int(version) for version in os.environ.get("TEST_POSTGRES", "").split()] or usual
        metafunc.parametrize("pg", versions, indirect=True, ids=lambda version: f"pg{version}")


@pytest.fixture(scope="session")
def run_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the services of this run. Under a short path that PostgreSQL's user can reach."""
    refuse_unmarked(request.session.items)
    folder = Path(tempfile.mkdtemp(prefix="tide-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _postgres_servers(run_dir: Path) -> Iterator[Callable[[int], PostgresServer]]:
    """The one server of a version. It may be stopped."""
    with ExitStack() as stack:
        yield cache(lambda version: started_postgres(stack, run_dir / f"postgres{version}", version))


@pytest.fixture(scope="session")
def _postgres18(_postgres_servers: Callable[[int], PostgresServer]) -> PostgresServer:
    return _postgres_servers(18)


@pytest.fixture
def postgres(_postgres18: PostgresServer) -> PostgresServer:
    """PostgreSQL 18."""
    _postgres18.start()
    return _postgres18


@pytest.fixture
def postgres16(_postgres_servers: Callable[[int], PostgresServer]) -> PostgresServer:
    """PostgreSQL 16."""
    server = _postgres_servers(16)
    server.start()
    return server


@pytest.fixture
def pg(request: pytest.FixtureRequest, _postgres_servers: Callable[[int], PostgresServer]) -> PostgresServer:
    """The PostgreSQL of this test: 18, and under the mark `each_postgres` 16 in a second run."""
    server = _postgres_servers(request.param)
    server.start()
    return server


@pytest.fixture
def database(pg: PostgresServer) -> Iterator[Database]:
    """A migrated database for this test alone, owned by a role that is no superuser."""
    taken = pg.take_database()
    yield taken
    pg.give_back_database(taken)


@pytest.fixture
def empty_database(pg: PostgresServer) -> Iterator[Database]:
    """The same, before any migration."""
    made = pg.create_database(migrated=False)
    yield made
    pg.drop_database(made)


@pytest.fixture
def redis_program(request: pytest.FixtureRequest) -> Path | None:
    """What runs as Redis: the server of the wheel, unless the folder of the test runs on others too."""
    return program_of(getattr(request, "param", EMBEDDED))


@pytest.fixture(scope="session")
def _redis_servers(run_dir: Path) -> Iterator[Callable[[Path | None], EmbeddedRedis]]:
    """The one server of a program. It may be stopped."""
    with ExitStack() as stack:
        yield cache(
            lambda program: stack.enter_context(EmbeddedRedis(run_dir / f"redis-{name_of(program)}", program=program))
        )


@pytest.fixture(scope="session")
def _redis(_redis_servers: Callable[[Path | None], EmbeddedRedis]) -> EmbeddedRedis:
    return _redis_servers(None)


@pytest.fixture
def redis_server(_redis_servers: Callable[[Path | None], EmbeddedRedis], redis_program: Path | None) -> EmbeddedRedis:
    """Redis without persistence, empty."""
    server = _redis_servers(redis_program).start()
    server.flush()
    return server


@pytest.fixture(scope="session")
def _nats(run_dir: Path) -> Iterator[NatsServer]:
    with NatsServer(run_dir / "nats") as server:
        yield server


@pytest.fixture
def nats_server(_nats: NatsServer) -> NatsServer:
    """NATS with JetStream. Streams of other tests may be there: name yours for your test."""
    return _nats.start()


@pytest.fixture(scope="session")
def _rabbitmq(run_dir: Path) -> Iterator[RabbitmqServer]:
    with RabbitmqServer(run_dir / "rabbitmq") as server:
        yield server


@pytest.fixture
def rabbitmq_server(_rabbitmq: RabbitmqServer) -> RabbitmqServer:
    """RabbitMQ. Queues of other tests may be there: name yours for your test."""
    return _rabbitmq.start()


@pytest.fixture(scope="session")
def _moto(run_dir: Path) -> Iterator[MotoServer]:
    with MotoServer(run_dir / "moto") as server:
        yield server


@pytest.fixture
def moto_server(_moto: MotoServer) -> MotoServer:
    """Amazon SQS and S3. Queues and buckets of other tests may be there: name yours for your test."""
    return _moto.start()


@pytest.fixture(scope="session")
def _kafka(run_dir: Path) -> Iterator[KafkaServer]:
    with KafkaServer(run_dir / "kafka") as server:
        yield server


@pytest.fixture
def kafka_server(_kafka: KafkaServer) -> KafkaServer:
    """Kafka with transactions. Topics of other tests may be there: name yours for your test."""
    return _kafka.start()


@pytest.fixture(scope="session")
def _apache_kafka(run_dir: Path) -> Iterator[ApacheKafka]:
    with ApacheKafka(run_dir / "apache-kafka", secured=True) as server:
        yield server


@pytest.fixture
def apache_kafka(_apache_kafka: ApacheKafka) -> ApacheKafka:
    """Apache Kafka itself, with credentials. Topics of other tests may be there: name yours for your test."""
    return _apache_kafka.start()


@pytest.fixture(scope="session")
def _http_receiver(run_dir: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(run_dir / "http") as server:
        yield server


@pytest.fixture
def http_receiver(_http_receiver: HttpReceiver) -> HttpReceiver:
    """A receiver of webhooks. Requests of other tests may be there: send yours to a path of your test's own."""
    return _http_receiver.start()


@pytest.fixture
def proxy() -> Iterator[Callable[[str], Proxy]]:
    """Makes proxies for this test alone: `proxy(nats_server.url)`."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Proxy(url))
