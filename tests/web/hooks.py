"""Fixtures for tests of `relay api`: one API for a module, and a pipeline for each test."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.services.postgres import Database, PostgresServer
from tests.web.api import ApiProcess, make_hook, running_api

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    # So long that nothing but a notification tells of a change.
    with running_api(database, tmp_path_factory.mktemp("api"), RELAY_DISCOVERY_INTERVAL="1h") as running:
        yield running


Hook = Callable[..., str]


@pytest.fixture
def hook(api: ApiProcess, database: Database, request: pytest.FixtureRequest) -> Hook:
    """Makes a pipeline with these keys that is known to the API; gives its name, which is its inbox's too."""

    def make(**config: Any) -> str:
        name = f"h{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
        make_hook(database, name, **config)
        api.wait_for(config.get("path") or name)
        return name

    return make


def known_as(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
