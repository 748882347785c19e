"""What is true of the Redis sink alone, on a real server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from relay.backends.redis.sink import RedisSink
from relay.backends.registry import sink_class
from relay.errors import NotConnected
from relay.local.servers import EmbeddedRedis
from tests.backends.redis.cluster import RedisCluster
from tests.backends.redis.harness import LARGEST_BYTES, RedisClusterHarness, RedisHarness
from tests.backends.steps import claims, deliver, opened, publish, start, within
from tests.services.proxy import Proxy
from tests.waiting import wait_until


@pytest.fixture
def harness(durable_redis: EmbeddedRedis) -> RedisHarness:
    return RedisHarness(durable_redis)


@contextmanager
def setting(harness: RedisHarness, name: str, value: Any, usual: Any) -> Iterator[None]:
    with harness.client() as client:
        client.config_set(name, value)
        try:
            yield
        finally:
            client.config_set(name, usual)


class TestAnEntry:
    def test_has_the_fields_that_are_promised(self, harness: RedisHarness) -> None:
        (sent,) = harness.records("orders")
        headers = {"type": "created", "body": "a header of that name", "": "no name", "ü": "日本"}
        with opened(harness) as sink:
            assert publish(sink, [sent._replace(key="k", headers=headers)]) == []
        ((_, fields),) = harness.entries("orders")
        assert {name.decode(): value.decode() for name, value in fields.items()} == {
            "body": "1",
            "key": "k",
            "header.type": "created",
            "header.body": "a header of that name",
            "header.": "no name",
            "header.ü": "日本",
            "header.relay-id": "orders:1",
        }

    def test_goes_to_the_stream_of_its_record(self, harness: RedisHarness) -> None:
        with opened(harness) as sink:
            assert publish(sink, harness.records("a", "b", "a", "ключ x")) == []
        assert [harness.ids(stream) for stream in ("a", "b", "ключ x")] == [[1, 3], [2], [4]]


class TestRefusals:
    def test_an_empty_name_is_refused_for_good(self, harness: RedisHarness) -> None:
        with opened(harness) as sink:
            failures = publish(sink, harness.records("a", "", "a"))
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, True, "bad_subject")]
        assert harness.ids("a") == [1, 3]

    @pytest.mark.parametrize("part", ["key", "header", "name"])
    def test_whatever_is_too_large_is_refused_for_good(self, harness: RedisHarness, part: str) -> None:
        batch = harness.records("a", "a", "a")
        text = "日" * (LARGEST_BYTES // 3 + 1)
        changes: dict[str, Any] = {
            "key": {"key": text}, "header": {"headers": {"h": text}}, "name": {"headers": {text: "x"}}
        }  # fmt: skip
        batch[1] = batch[1]._replace(**changes[part])
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "too_large")]
        assert harness.ids("a") == [1, 3]

    def test_a_key_of_another_type_is_temporary_because_it_can_be_removed(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            client.set("b", "text")
            failures = publish(sink, harness.records("a", "b", "a"))
            assert [(f.index, f.permanent, f.code) for f in failures] == [(1, False, "wrong_type")]
            with pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("b"))
            assert (caught.value.code, "'b'" in str(caught.value)) == ("wrong_type", True)
            client.delete("b")
            assert publish(sink, harness.records("b")) == []

    @pytest.mark.parametrize(
        ("name", "value", "usual", "code"),
        [("maxmemory", 1, 0, "out_of_memory"), ("min-replicas-to-write", 1, 0, "not_replicated")],
    )
    def test_what_the_server_cannot_do_now_is_done_later(
        self, harness: RedisHarness, name: str, value: int, usual: int, code: str
    ) -> None:
        with opened(harness) as sink:
            with setting(harness, name, value, usual), pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a", "a"))
            assert caught.value.code == code
            assert harness.entries("a") == []
            deliver(sink, harness.records("a", "a"))
        assert harness.ids("a") == [1, 2]

    def test_a_replica_is_said_to_be_one(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            client.replicaof("127.0.0.1", 1)
            try:
                with pytest.raises(NotConnected) as caught:
                    publish(sink, harness.records("a"))
                assert caught.value.code == "read_only"
            finally:
                client.replicaof("NO", "ONE")


class TestOrder:
    def test_nothing_is_sent_after_a_chunk_in_which_something_failed_for_now(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            client.set("b", "text")
            failures = publish(sink, harness.records(*["a"] * 500, "b", *["a"] * 1500))
        codes = [(failure.index, failure.code) for failure in failures]
        assert codes == [(500, "wrong_type"), *[(index, "not_sent") for index in range(1000, 2001)]]
        assert len(harness.ids("a")) == 999

    def test_a_connection_that_is_cut_in_mid_batch_leaves_whole_chunks(self, harness: RedisHarness) -> None:
        batch = [record._replace(body=b"x" * 10_000) for record in harness.records(*["a"] * 1000)]
        with Proxy(harness.server.url) as proxy, opened(harness, url=proxy.through(harness.server.url)) as sink:
            proxy.cut_after(6_000_000)
            with pytest.raises(NotConnected):
                publish(sink, batch)
            some = len(harness.ids("a"))
            assert 0 < some < 1000
            deliver(sink, batch)
        assert harness.ids("a") == [*range(1, some + 1), *range(1, 1001)]

    def test_a_batch_of_many_chunks_arrives_in_order(self, harness: RedisHarness) -> None:
        batch = [record._replace(body=b"x" * 50_000) for record in harness.records(*["a"] * 300)]
        with opened(harness) as sink:
            assert publish(sink, batch) == []
        assert harness.ids("a") == list(range(1, 301))


class TestMaxlen:
    def test_trims_to_the_number(self, harness: RedisHarness) -> None:
        with opened(harness, maxlen=5, approximate=False) as sink:
            assert publish(sink, harness.records(*["a"] * 20)) == []
        assert harness.ids("a") == [16, 17, 18, 19, 20]

    def test_trims_about_that_when_approximate(self, harness: RedisHarness) -> None:
        with opened(harness, maxlen=5) as sink:
            assert publish(sink, harness.records(*["a"] * 1000)) == []
        assert 5 <= len(harness.ids("a")) < 500


class TestReplicas:
    def test_are_waited_for(self, harness: RedisHarness, own_redis: Callable[..., EmbeddedRedis]) -> None:
        replica = own_redis()
        with harness.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
        with RedisHarness(replica).client() as client:
            client.config_set("masterauth", harness.server.password)
            client.replicaof("127.0.0.1", harness.server.port)
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica follows")
            with opened(harness, wait_replicas=1, timeout_ms=2000) as sink:
                assert publish(sink, harness.records("a", "a")) == []
                assert client.xlen("a") == 2
                replica.kill()
                with pytest.raises(NotConnected, match="0 replicas have it") as caught:
                    publish(sink, harness.records("a", first=3))
        assert caught.value.code == "not_replicated"


class TestConnections:
    def test_the_primary_is_found_after_a_failover_under_the_same_name(
        self, harness: RedisHarness, own_redis: Callable[..., EmbeddedRedis], proxy: Callable[[str], Proxy]
    ) -> None:
        """Also when the batch holds a record that is refused permanently."""
        former = own_redis()
        between = proxy(former.url)
        with RedisHarness(former).client() as client:
            client.config_set("requirepass", harness.server.password)
            with opened(harness, url=between.through(harness.server.url)) as sink:
                assert publish(sink, harness.records("a")) == []
                client.replicaof("127.0.0.1", 1)
                between.lead_to(harness.server.port)
                with pytest.raises(NotConnected) as caught:
                    publish(sink, harness.records("a", "", first=2))
                assert caught.value.code == "read_only"
                sink.open()
                assert [failure.code for failure in publish(sink, harness.records("a", "", first=2))] == ["bad_subject"]
        assert harness.ids("a") == [2]

    def test_one_that_was_ended_while_nothing_happened_is_opened_again(self, harness: RedisHarness) -> None:
        with harness.client() as client, opened(harness) as sink:
            names = [one["name"] for one in client.client_list()]
            assert "tide-relay:contract" in names
            client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a"))
            assert caught.value.code == "not_connected"
            deliver(sink, harness.records("a"))
        assert harness.ids("a") == [1]

    def test_one_that_waits_ends_at_once_when_it_is_closed(self, harness: RedisHarness) -> None:
        sink = harness.make_sink(timeout_ms=60_000)
        sink.open()
        assert isinstance(sink, RedisSink)
        assert sink._link is not None
        link = sink._link
        with harness.stall():
            ended = start(lambda: claims(sink, harness.records("a")))
            wait_until(link._busy.locked, what="it publishes")
            within(1, sink.close)
            assert ended(1) == set()

    @pytest.mark.parametrize("trouble", ["cut", "half_close", "refuse"])
    def test_trouble_on_the_way_is_over_when_it_is(self, harness: RedisHarness, trouble: str) -> None:
        with (
            Proxy(harness.server.url) as proxy,
            opened(harness, url=proxy.through(harness.server.url), timeout_ms=500) as sink,
        ):
            getattr(proxy, trouble)()
            with pytest.raises(NotConnected):
                publish(sink, harness.records("a"))
            proxy.heal()
            deliver(sink, harness.records("a"))
        assert harness.ids("a")[-1] == 1

    def test_the_time_limit_holds_for_a_batch_and_not_for_each_piece_of_it(self, harness: RedisHarness) -> None:
        batch = [record._replace(body=b"x" * 1_000_000) for record in harness.records(*["a"] * 40)]
        with (
            Proxy(harness.server.url) as proxy,
            opened(harness, url=proxy.through(harness.server.url), timeout_ms=400) as sink,
        ):
            proxy.delay(0.15)
            with pytest.raises(NotConnected) as caught:
                publish(sink, batch)
        assert caught.value.code == "timeout"


class TestACluster:
    @pytest.fixture
    def cluster(self, redis_cluster: RedisCluster) -> RedisClusterHarness:
        return RedisClusterHarness(redis_cluster)

    def test_has_streams_on_every_node(self, cluster: RedisClusterHarness) -> None:
        a, b = (cluster.cluster.key_on(number, "stream") for number in (0, 1))
        with opened(cluster) as sink:
            assert publish(sink, cluster.records(a, b, a, b)) == []
        assert (cluster.ids(a), cluster.ids(b)) == ([1, 3], [2, 4])

    def test_may_move_a_slot(self, cluster: RedisClusterHarness) -> None:
        a, b = (cluster.cluster.key_on(number, "moving") for number in (0, 1))
        with opened(cluster) as sink, cluster.cluster.moved(a):
            failures = publish(sink, cluster.records(b, a, b))
            assert [(f.index, f.code) for f in failures] == [(1, "moved")]
            with pytest.raises(NotConnected) as caught:
                publish(sink, cluster.records(a))
            assert caught.value.code == "moved"
            deliver(sink, cluster.records(a))
            assert cluster.cluster.nodes[1].client().xlen(a) == 1

    def test_is_found_by_any_node_that_answers(self, cluster: RedisClusterHarness) -> None:
        urls = [f"redis://:{cluster.cluster.password}@127.0.0.1:1", *cluster.cluster.url.split(",")]
        with opened(cluster, url=urls, cluster=True) as sink:
            assert publish(sink, cluster.records("a", "b", "c")) == []


def test_the_sink_is_the_one_of_the_table() -> None:
    assert sink_class("redis") is RedisSink
