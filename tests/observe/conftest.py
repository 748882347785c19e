"""`firing`: which alerts fire, of given series. `observed`: one fleet for all tests of a module.

A test may break the fleet: what is down is started for the next.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedRedis
from tests.observe.firing import judge_in
from tests.observe.observed import Observed, running
from tests.observe.prometheus import PrometheusServer
from tests.observe.rules import RULES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process has them all, as they share a fleet."""
    for item in items:
        if "observed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("observe"))
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def firing(tmp_path: Path) -> Callable[..., None]:
    return judge_in(tmp_path)


# Not of the session: Prometheus and the fleet would go on beside all the tests that come after.
@pytest.fixture(scope="module")
def _observed(_postgres18, run_dir) -> Iterator[Observed]:
    folder = run_dir / "observed"
    folder.mkdir(mode=0o755)
    redis = EmbeddedRedis(folder / "redis")
    redis.start()
    redis.stop()
    database = _postgres18.create_database()
    try:
        with (
            PrometheusServer(folder / "prometheus", [RULES]) as prometheus,
            running(database, redis, prometheus, folder) as observed,
        ):
            yield observed
    finally:
        redis.kill()
        _postgres18.drop_database(database)


@pytest.fixture
def observed(_observed: Observed) -> Observed:
    """It is whole."""
    _observed.redis.start()
    for process in (_observed.scheduler, _observed.workers):
        if not process.is_running:
            process.start()
            process.wait_ready()
    return _observed
