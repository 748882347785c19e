"""Which queues there are, and which workers may wait on sources."""

import pytest

from relay.broker.queues import DRAIN_QUEUES, MAINTENANCE_QUEUE, check_queues, may_all_wait
from relay.errors import ConfigError
from relay.settings import Settings
from workers.resources import Resources

FORWARD, REVERSE = DRAIN_QUEUES["forward"], DRAIN_QUEUES["reverse"]


def test_every_queue_is_known():
    check_queues([FORWARD, REVERSE, MAINTENANCE_QUEUE])
    check_queues([])


def test_an_unknown_queue_is_refused_by_name():
    with pytest.raises(
        ConfigError,
        match=r"no queue tide\.revers; known: tide\.forward, tide\.reverse, tide\.jobs, tide\.streams, "
        r"tide\.maintenance",
    ):
        check_queues([FORWARD, "tide.revers"])


@pytest.mark.parametrize(
    ("served", "all_of_them"),
    [([REVERSE], True), ([FORWARD, REVERSE], False), ([REVERSE, MAINTENANCE_QUEUE], False), ([FORWARD], False)],
)
def test_all_threads_may_wait_where_there_are_reverse_drains_only(served, all_of_them):
    assert may_all_wait(served) is all_of_them
    settings = Settings.load(postgres_url="postgresql://not-used")
    resources = Resources(settings, threads=2, all_may_wait=may_all_wait(served))
    try:
        with resources.wait_slots.slot("first") as first, resources.wait_slots.slot("second") as second:
            assert (first, second) == (True, all_of_them)
    finally:
        resources.close()
