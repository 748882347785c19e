"""Servers that a test makes for itself, as many as it likes: they end with it. Fixtures of all tests."""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relay.local.server_process import ServerProcess
from relay.local.servers import EmbeddedRedis
from tests.services.http_receiver import HttpReceiver
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import PostgresServer
from tests.services.rabbitmq import RabbitmqServer

S = TypeVar("S", bound=ServerProcess)


@pytest.fixture
def own_kafka(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., KafkaServer]]:
    """Makes servers for this test alone: `own_kafka(secured=True, certificate=(cert, key))`."""
    yield from _own(KafkaServer, own_dirs)


@pytest.fixture
def own_http_receiver(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., HttpReceiver]]:
    """Makes receivers for this test alone: `own_http_receiver(tls=(cert, key))`."""
    yield from _own(HttpReceiver, own_dirs)


@pytest.fixture
def own_postgres(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., PostgresServer]]:
    """Makes servers for this test alone: `own_postgres(version=18, settings={...})`."""
    with ExitStack() as stack:

        def make(version: int = 18, settings: dict[str, str | int] | None = None) -> PostgresServer:
            return started_postgres(stack, own_dirs(), version, settings)

        yield make


@pytest.fixture
def own_redis(own_dirs: Callable[[], Path], redis_program: Path | None) -> Iterator[Callable[..., EmbeddedRedis]]:
    """Makes servers for this test alone: `own_redis(persistent=False)`."""
    yield from _own(partial(EmbeddedRedis, program=redis_program), own_dirs)


@pytest.fixture
def own_nats(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., NatsServer]]:
    """Makes servers for this test alone: `own_nats(max_payload_bytes=1048576)`."""
    yield from _own(NatsServer, own_dirs)


@pytest.fixture
def own_rabbitmq(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., RabbitmqServer]]:
    """Makes servers for this test alone: `own_rabbitmq()`."""
    yield from _own(RabbitmqServer, own_dirs)


@pytest.fixture
def own_moto(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., MotoServer]]:
    """Makes servers for this test alone: `own_moto(authenticated=True)`."""
    yield from _own(MotoServer, own_dirs)


@pytest.fixture
def own_dirs(run_dir: Path) -> Iterator[Callable[[], Path]]:
    """Gives folders for the services of this test alone: `own_dirs()`."""
    folder = Path(tempfile.mkdtemp(prefix="own-", dir=run_dir))
    folder.chmod(0o755)
    numbers = itertools.count()
    yield lambda: folder / str(next(numbers))
    shutil.rmtree(folder, ignore_errors=True)


def _own(kind: Callable[..., S], own_dirs: Callable[[], Path]) -> Iterator[Callable[..., S]]:
    with ExitStack() as stack:

        def make(**options: Any) -> S:
            server = kind(own_dirs(), **options)
            stack.enter_context(server)
            return server

        yield make


def started_postgres(stack: ExitStack, folder: Path, version: int, settings: Any = None) -> PostgresServer:
    server = PostgresServer.start_in(folder, version, settings)
    stack.callback(server.close)
    return server
