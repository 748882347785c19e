"""Exactly once: entry ids made from message ids, on a real server."""

import pytest

from relay.errors import NotConnected
from relay.local.servers import EmbeddedRedis
from relay.models import Record
from tests.backends.redis.harness import RedisHarness
from tests.backends.steps import opened, publish


@pytest.fixture
def harness(durable_redis: EmbeddedRedis) -> RedisHarness:
    return RedisHarness(durable_redis, exactly_once=True)


def created(records: list[Record], moment: str) -> list[Record]:
    return [record._replace(headers={"relay-created-at": moment}) for record in records]


def test_entries_have_the_ids_of_their_messages(harness: RedisHarness) -> None:
    with opened(harness) as sink:
        assert publish(sink, harness.records("a", "b", "a")) == []
    assert [number for number, _ in harness.entries("a")] == ["1-0", "3-0"]


def test_what_is_sent_again_in_part_is_added_in_part(harness: RedisHarness) -> None:
    with opened(harness) as sink:
        assert publish(sink, harness.records(*["a", "b"] * 100)) == []
    with opened(harness) as sink:
        assert publish(sink, harness.records(*["a", "b"] * 200)) == []
    assert harness.ids("a") == list(range(1, 401, 2))
    assert harness.ids("b") == list(range(2, 401, 2))


class TestAStreamOfSomebodyElse:
    def test_that_is_ahead_stops_the_pipeline(self, harness: RedisHarness) -> None:
        with harness.client() as client:
            client.xadd("a", {"body": "theirs"})
        with opened(harness) as sink, pytest.raises(NotConnected, match="stream of its own") as caught:
            publish(sink, harness.records("a", "a"))
        assert caught.value.code == "foreign_stream"

    def test_that_has_our_id_stops_the_pipeline(self, harness: RedisHarness) -> None:
        with harness.client() as client:
            client.xadd("a", {"body": "theirs"}, id="1-0")
        with opened(harness) as sink:
            failures = publish(sink, harness.records("a", "a"))
        assert [(f.index, f.permanent, f.code) for f in failures] == [(0, False, "foreign_stream")]

    def test_that_writes_among_ours_is_noticed(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            assert publish(sink, harness.records("a")) == []
            client.xadd("a", {"body": "theirs"})
            with pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a", first=2))
        assert caught.value.code == "foreign_stream"

    def test_may_be_an_outbox_of_another_name(self, harness: RedisHarness) -> None:
        theirs = [record._replace(dedup_id="other:1") for record in harness.records("a")]
        with opened(harness) as sink:
            assert publish(sink, theirs) == []
            with pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a"))
        assert caught.value.code == "foreign_stream"

    def test_may_be_an_earlier_outbox_of_the_same_name(self, harness: RedisHarness) -> None:
        with opened(harness) as sink:
            assert publish(sink, created(harness.records("a"), "2024")) == []
            assert publish(sink, created(harness.records("a"), "2024")) == []
            with pytest.raises(NotConnected) as caught:
                publish(sink, created(harness.records("a"), "2025"))
        assert caught.value.code == "foreign_stream"


class TestAnEntryThatIsGone:
    def test_is_not_called_delivered(self, harness: RedisHarness) -> None:
        batch = harness.records(*["a"] * 4)
        with harness.client() as client, opened(harness) as sink:
            assert publish(sink, batch[:3]) == []
            client.xdel("a", "2-0")
            failures = publish(sink, batch)
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, True, "id_passed")]
        assert harness.ids("a") == [1, 3, 4]

    def test_is_refused_for_good_when_all_are_gone(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            assert publish(sink, harness.records("a", "a")) == []
            client.xtrim("a", maxlen=0, approximate=False)
            failures = publish(sink, harness.records("a", "a", "a"))
        assert [(f.index, f.code) for f in failures] == [(0, "id_passed"), (1, "id_passed")]
        assert harness.ids("a") == [3]

    def test_is_sent_anew_when_the_stream_itself_is_gone(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            assert publish(sink, harness.records("a", "a")) == []
            client.delete("a")
            assert publish(sink, harness.records("a", "a", "a")) == []
        assert harness.ids("a") == [1, 2, 3]
