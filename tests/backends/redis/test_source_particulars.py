"""What is true of the Redis source alone, on a real server."""

import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from relay.backends.redis.source import RedisSource
from relay.backends.registry import source_class
from relay.backends.source import MAX_HELD_BYTES
from relay.errors import NotConnected
from relay.local.servers import EmbeddedRedis
from relay.models import Record
from tests.backends.redis.harness import RedisHarness
from tests.backends.redis.source_harness import GROUP, RedisSourceHarness
from tests.backends.source_harness import AWKWARD_BODIES
from tests.backends.source_steps import (
    messages,
    numbers,
    opened,
    peak_growth_bytes,
    receive,
    take,
)
from tests.backends.steps import opened as opened_sink
from tests.backends.steps import publish
from tests.waiting import wait_until


@pytest.fixture
def harness(durable_redis: EmbeddedRedis) -> RedisSourceHarness:
    return RedisSourceHarness(RedisHarness(durable_redis))


class TestEntriesThatAreGone:
    def test_are_acknowledged_and_logged(self, harness: RedisSourceHarness, caplog: pytest.LogCaptureFixture) -> None:
        harness.send(messages(1, 10))
        with opened(harness) as source:
            received = take(source, 10)
        with harness.client() as client:
            client.xdel(harness.stream, *(message.token for message in received[2:5]))
        with caplog.at_level(logging.WARNING), opened(harness) as source:
            arrived = take(source, 7)
            assert numbers(arrived) == [1, 2, 6, 7, 8, 9, 10]
            assert harness.pending() == 7
        assert self.logged(caplog) == 3
        assert f"the first is {received[2].position}" in caplog.text

    def test_that_another_consumer_left_are_acknowledged_too(
        self, harness: RedisSourceHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.send(messages(1, 3))
        with opened(harness):
            pass
        with harness.client() as client:
            client.xreadgroup(GROUP, "dead", {harness.stream: ">"})
            client.xtrim(harness.stream, maxlen=0, approximate=False)
        harness.send(messages(4, 1))
        with opened(harness, claim_idle_ms=1) as source:
            source.ack(take(source, 1))
            wait_until(lambda: receive(source, 1, 0) == [] and harness.pending() == 0, what="nothing is pending")
        assert self.logged(caplog) == 3

    @pytest.mark.parametrize("stored", [True, False])
    def test_while_they_are_in_hand_are_logged_only_if_they_are_not_stored(
        self, harness: RedisSourceHarness, caplog: pytest.LogCaptureFixture, stored: bool
    ) -> None:
        harness.send(messages(1, 5))
        with opened(harness, claim_idle_ms=1) as source:
            received = take(source, 5)
            with harness.client() as client:
                client.xdel(harness.stream, *(message.token for message in received[:2]))
            harness.send(messages(6, 1))
            received += take(source, 1)  # with a claim before it
            if stored:
                source.ack(received)
        with opened(harness) as source:
            assert numbers(receive(source, 10, 0)) == ([] if stored else [3, 4, 5, 6])
            assert harness.pending() == (0 if stored else 4)
        assert self.logged(caplog) == (0 if stored else 2)

    def logged(self, caplog: pytest.LogCaptureFixture) -> int:
        return sum(map(int, re.findall(r"(\d+) entries were deleted or trimmed before they were stored", caplog.text)))


def test_a_primary_that_becomes_a_replica_is_named(own_redis: Callable[..., EmbeddedRedis]) -> None:
    harness = RedisSourceHarness(RedisHarness(own_redis()))
    with opened(harness) as source, harness.client() as client, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(receive, source, 10, 20)
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1, what="the source waits")
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(NotConnected) as caught:
            waits.result(20)
        assert caught.value.code == "read_only"
        client.replicaof("NO", "ONE")
        harness.send(messages(1, 1))
        source.open({})
        assert numbers(take(source, 1)) == [1]


def test_what_was_acknowledged_is_not_remembered(harness: RedisSourceHarness) -> None:
    harness.send(messages(1, 5))
    with opened(harness) as source:
        assert isinstance(source, RedisSource)
        source.ack(take(source, 5))
        assert not source._held


def test_a_wait_may_be_longer_than_the_time_limit(harness: RedisSourceHarness) -> None:
    with opened(harness, timeout_ms=300) as source:
        assert receive(source, 10, 0.7) == []


def test_large_entries_after_many_small_ones_do_not_fill_the_memory(harness: RedisSourceHarness) -> None:
    harness.send(messages(1, 300))
    for first in range(301, 361, 10):
        harness.send(messages(first, 10, padding=1_000_000))
    with opened(harness) as source:

        def drain() -> None:
            left = 360
            while left:
                received = receive(source, 1000, 1.0)
                source.ack(received)
                left -= len(received)

        assert peak_growth_bytes(drain) < 6 * MAX_HELD_BYTES


class TestEntries:
    def test_of_the_sink_come_as_they_were_sent(self, harness: RedisSourceHarness) -> None:
        headers = {"name": "Zoë 日本 🚀", "type": "created", "empty": "", "lines": "a\r\nb", "relay-id": "o:1"}
        sent = [
            Record(number, f"o:{number}", harness.stream, key, body, headers | {"relay-id": f"o:{number}"})
            for number, (body, key) in enumerate(zip(AWKWARD_BODIES, [None, "", "k", "ü"] * 9, strict=False), 1)
        ]
        with opened_sink(harness.sink) as sink, opened(harness) as source:
            assert publish(sink, sent) == []
            arrived = take(source, len(sent))
        assert [(m.body, m.key, m.headers) for m in arrived] == [(r.body, r.key, r.headers) for r in sent]

    def test_of_others_are_objects_or_have_their_body_named(self, harness: RedisSourceHarness) -> None:
        harness.add({"payload": "[1]", "type": "created"})
        with opened(harness) as source:
            assert json.loads(take(source, 1)[0].body) == {"payload": "[1]", "type": "created"}
        with opened(harness, body_field="payload") as source:
            (message,) = take(source, 1)
        assert (message.body, message.headers) == (b"[1]", {"type": "created"})

    def test_have_the_same_id_each_time(self, harness: RedisSourceHarness) -> None:
        entry_id = harness.add({"body": "1"})
        for _ in range(2):
            with opened(harness) as source:
                (message,) = take(source, 1)
                assert message.id == f"{harness.stream}/{entry_id}"


def test_the_source_is_the_one_of_the_table() -> None:
    assert source_class("redis") is RedisSource
