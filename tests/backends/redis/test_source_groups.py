"""The consumer group of the Redis source: where it begins, what others of it left, and what becomes of it."""

import logging
from collections.abc import Callable

import pytest

from relay.errors import ConfigError, NotConnected
from relay.local.servers import EmbeddedRedis
from tests.backends.redis.harness import RedisHarness
from tests.backends.redis.source_harness import GROUP, RedisSourceHarness
from tests.backends.source_steps import (
    Drainer,
    Inbox,
    messages,
    numbers,
    opened,
    receive,
    store,
    take,
)
from tests.waiting import wait_until


@pytest.fixture
def harness(durable_redis: EmbeddedRedis) -> RedisSourceHarness:
    return RedisSourceHarness(RedisHarness(durable_redis))


class TestOtherConsumers:
    def leave(self, harness: RedisSourceHarness, consumer: str, count: int) -> None:
        """Another consumer receives so many entries, and is not seen again."""
        with harness.client() as client:
            client.xreadgroup(GROUP, consumer, {harness.stream: ">"}, count=count)

    def test_what_they_left_is_taken_over_in_the_order_of_the_stream(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 40))
        with opened(harness):
            pass
        self.leave(harness, "dead", 10)
        with opened(harness) as source:
            ours = take(source, 10)
            self.leave(harness, "dead too", 10)
        assert numbers(ours) == list(range(11, 21))
        wait_until(lambda: self.idle_ms(harness) >= 20, what="the entries are left alone for 20 ms")
        with opened(harness, claim_idle_ms=20) as source:
            arrived = take(source, 40)
            assert numbers(arrived) == list(range(1, 41))
            source.ack(arrived)
        assert harness.pending() == 0

    def test_what_they_still_work_on_is_left_to_them(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 20))
        with opened(harness):
            pass
        self.leave(harness, "alive", 10)
        with opened(harness) as source:
            assert numbers(take(source, 10)) == list(range(11, 21))
            assert receive(source, 10, 0.1) == []

    def test_what_they_left_is_noticed_while_waiting(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 5))
        with opened(harness, claim_idle_ms=150) as source:
            self.leave(harness, "dead", 5)
            assert numbers(receive(source, 10, 10)) == [1, 2, 3, 4, 5]

    def test_what_they_left_comes_without_what_we_hold(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 10))
        with opened(harness, claim_idle_ms=150) as source:
            held = take(source, 5)
            self.leave(harness, "dead", 5)
            assert numbers(receive(source, 10, 10)) == [6, 7, 8, 9, 10]
            source.ack(held)

    def test_what_they_left_is_taken_over_whole(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 2500))
        with opened(harness):
            pass
        self.leave(harness, "dead", 2500)
        wait_until(lambda: self.idle_ms(harness) >= 1, what="the entries are left alone")
        with opened(harness, claim_idle_ms=1) as source, harness.client() as client:
            assert numbers(receive(source, 1, 0)) == [1]
            assert [one["name"] for one in client.xpending(harness.stream, GROUP)["consumers"]] == [b"contract"]

    def test_our_own_long_work_is_not_taken_over_from_ourselves(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 5))
        with opened(harness, claim_idle_ms=20) as source:
            held = take(source, 5)
            assert receive(source, 10, 0.2) == []
            source.ack(held)

    def idle_ms(self, harness: RedisSourceHarness) -> int:
        with harness.client() as client:
            return min(
                one["time_since_delivered"] for one in client.xpending_range(harness.stream, GROUP, "-", "+", 99)
            )


class TestAGroup:
    @pytest.mark.parametrize(("start", "expected"), [("0", [1, 2, 3, 4]), ("$", [4])])
    def test_begins_where_it_is_told(self, harness: RedisSourceHarness, start: str, expected: list[int]) -> None:
        harness.send(messages(1, 3))
        with opened(harness, start=start) as source:
            harness.send(messages(4, 1))
            assert numbers(take(source, len(expected))) == expected

    def test_begins_after_an_entry(self, harness: RedisSourceHarness) -> None:
        second = [
            harness.add({"body": body}, entry_id) for body, entry_id in (("{}", "5-1"), ("{}", "5-2"), ("{}", "6"))
        ]
        with opened(harness, start=second[1]) as source:
            assert [message.id for message in take(source, 1)] == [f"{harness.stream}/6-0"]

    @pytest.mark.parametrize("start", ["0", "$"])
    def test_that_was_removed_begins_anew_and_loses_nothing(self, harness: RedisSourceHarness, start: str) -> None:
        inbox = Inbox()
        with opened(harness, start=start) as source:
            harness.send(messages(1, 20))
            store(source, inbox, take(source, 10))
            with harness.client() as client:
                client.xgroup_destroy(harness.stream, GROUP)
            with pytest.raises(NotConnected) as caught:
                receive(source, 10, 0)
            assert caught.value.code == "no_group"
        # Another worker, who knows of the group from PostgreSQL alone.
        with opened(harness, inbox.positions, start=start) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=20)
        assert inbox.numbers() == list(range(1, 21))

    def test_that_was_removed_before_anything_came_begins_anew_too(self, harness: RedisSourceHarness) -> None:
        with opened(harness, start="$") as source:
            with harness.client() as client:
                client.xgroup_destroy(harness.stream, GROUP)
            harness.send(messages(1, 3))
            with pytest.raises(NotConnected):
                receive(source, 10, 0)
            source.open({})
            assert numbers(take(source, 3)) == [1, 2, 3]

    def test_of_a_stream_that_was_lost_waits_for_it_to_come_back(self, harness: RedisSourceHarness) -> None:
        inbox = Inbox()
        harness.send(messages(1, 5))
        with opened(harness, create_stream=False, start="$") as source, Drainer(source, inbox) as drainer:
            harness.send(messages(6, 5))
            drainer.wait_for(written=5)
            with harness.client() as client:
                client.flushall()
            drainer.wait_for(troubles=1)
            wait_until(self.is_made(harness), what="the group is made again, and with it the stream")
            harness.send(messages(100, 5))
            drainer.wait_for(written=10)
        assert inbox.numbers() == [6, 7, 8, 9, 10, 100, 101, 102, 103, 104]

    def test_of_a_stream_that_was_recreated_before_anything_came_begins_at_its_beginning(
        self, harness: RedisSourceHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.send(messages(1, 3))
        with opened(harness, start="$") as source:
            begun = dict(source.begun)
            assert receive(source, 10, 0) == []
        with harness.client() as client:
            client.delete(harness.stream)
        harness.send(messages(10, 4))
        with caplog.at_level(logging.WARNING), opened(harness, begun, start="$") as source:
            assert not source.begun
            assert numbers(take(source, 4)) == [10, 11, 12, 13]
        assert "entries whose ids are known count as stored" in caplog.text

    def test_that_begins_at_the_beginning_leaves_nothing_to_remember(self, harness: RedisSourceHarness) -> None:
        harness.send(messages(1, 1))
        with opened(harness) as source:
            assert not source.begun

    def test_of_a_redis_that_forgot_everything_is_made_again(self, harness: RedisSourceHarness) -> None:
        inbox = Inbox()
        harness.send(messages(1, 5))
        with opened(harness) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=5)
            with harness.client() as client:
                client.config_set("appendonly", "no")
                client.flushall()
            harness.stop()
            drainer.wait_for(troubles=1)
            harness.start()
            harness.send(messages(6, 5))
            drainer.wait_for(written=10)
        assert inbox.numbers() == list(range(1, 11))

    def is_made(self, harness: RedisSourceHarness) -> Callable[[], bool]:
        def made() -> bool:
            with harness.client() as client:
                return bool(client.exists(harness.stream))

        return made

    def test_is_not_made_for_a_stream_that_is_not_there(self, harness: RedisSourceHarness) -> None:
        with pytest.raises(ConfigError):
            harness.make_source(create_stream=False).open({})
        with harness.client() as client:
            assert client.exists(harness.stream) == 0
