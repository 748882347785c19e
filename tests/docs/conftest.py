"""`at`: a fleet to be brought into the trouble that a runbook is for."""

from collections.abc import Iterator

import pytest

from relay.local.servers import EmbeddedRedis
from tests.docs.runbook_fleet import Site, site
from tests.services.postgres import PostgresServer


@pytest.fixture(scope="module")
def _site(
    _postgres18: PostgresServer, _redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with site(_postgres18, _redis, tmp_path_factory.mktemp("runbooks")) as made:
        yield made


@pytest.fixture
def at(_site: Site) -> Iterator[Site]:
    """A fleet that has delivered ten messages, and is idle."""
    _site.make()
    _site.deliver()
    yield _site
    _site.clear()
