"""A fleet of processes for each test, `fleet` and `pipelines`; or single drains in the test itself, `bench`."""

from collections.abc import Iterator

import pytest

from relay.backends.memory import sink
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import Fleet, running_fleet
from tests.fleets.single_drains import Bench


@pytest.fixture
def pipelines(database, tmp_path) -> Pipelines:
    """In a database of their own."""
    return Pipelines(database.url, tmp_path / "delivered")


@pytest.fixture
def fleet(database, redis_server, tmp_path) -> Iterator[Fleet]:
    """No process yet: the test starts what it needs. Its processes have the rights of tide_relay, and no others."""
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def bench(database) -> Iterator[Bench]:
    """The resources of one worker."""
    made = Bench(database)
    yield made
    made.close()


@pytest.fixture
def store(bench) -> Iterator[sink.Store]:
    """What the sink of the pipeline `p` of the bench has got, and what it has something against."""
    bench.publish_to(sink_type="memory", name="redelivery", batch_size=10)
    yield sink.store("redelivery")
    sink.forget("redelivery")
