"""A fleet for each test, or one for a whole module whose tests harm nobody: `fleet` and `pipelines`."""

from collections.abc import Iterator

import pytest

from tests.processes.fleet import Fleet, running_fleet
from tests.processes.pipelines import Pipelines


@pytest.fixture
def pipelines(database, tmp_path) -> Pipelines:
    """In a database of their own."""
    return Pipelines(database.url, tmp_path / "delivered")


@pytest.fixture
def fleet(database, redis_server, tmp_path) -> Iterator[Fleet]:
    """No process yet: the test starts what it needs. Its processes have the rights of tide_relay, and no others."""
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        yield fleet
