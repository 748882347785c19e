"""A receiver that says how long it wants to be left alone is left alone for so long."""

from dataclasses import replace

import pytest

from relay.backends.memory.sink import MemorySink
from relay.backends.registry import SINKS
from relay.errors import NotConnected
from relay.models import Failure
from relay.settings import Settings
from tests.sql.support import begin, make_pipeline, publish_many, relay_session
from workers import forward
from workers.resources import Resources


class Overloaded(MemorySink):
    """Takes the first record of a batch only."""

    features = replace(MemorySink.features)

    def publish(self, records):
        if len(records) < 2:
            raise NotConnected("one record only")
        return [Failure(index, False, "throttled", "later", 900.0) for index in range(1, len(records))]


@pytest.fixture
def resources(database):
    resources = Resources(Settings(postgres_url=database.url), threads=1)
    yield resources
    resources.pool.close()


def test_the_drain_is_tried_again_no_earlier(database, resources, monkeypatch):
    monkeypatch.setitem(SINKS, "memory", f"{__name__}:Overloaded")
    make_pipeline(database)
    with database.connect() as owner:
        publish_many(owner, 3)
    with relay_session(database.url) as connection:
        result = forward.drain(resources, begin(connection))
    assert (result.outcome, result.error_code, result.progressed) == ("failed", "throttled", True)
    assert 900 <= (result.retry_seconds or 0) <= 930
