"""Who may use Redis, and how: credentials, permissions, databases, TLS. What is true of the sink's connection is true
of the source's: they share it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.errors import ConfigError, NotConnected
from relay.local.servers import EmbeddedRedis
from tests.backends.redis.cluster import RedisCluster
from tests.backends.redis.harness import RedisClusterHarness, RedisHarness
from tests.backends.redis.source_harness import RedisSourceHarness
from tests.backends.redis.tls import make_certificate, tls_before
from tests.backends.source_harness import Sent
from tests.backends.source_steps import opened as opened_source
from tests.backends.source_steps import take
from tests.backends.steps import opened, publish

LIMITED = {"username": "limited", "password": "s3cret-limited"}


@pytest.fixture
def harness(durable_redis: EmbeddedRedis) -> RedisHarness:
    return RedisHarness(durable_redis)


@contextmanager
def limited_to(harness: RedisHarness, *rules: str, stream: str = "a") -> Iterator[dict[str, Any]]:
    """The configuration of an ACL user that may do this, and no more."""
    with harness.client(stream) as client:
        client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">s3cret-limited", *rules)
        try:
            yield LIMITED
        finally:
            client.execute_command("ACL", "DELUSER", "limited")


class TestPermissions:
    def test_of_the_page_are_enough_for_the_sink(self, harness: RedisHarness) -> None:
        rules = ("~a", "+xadd", "+multi", "+exec")
        with limited_to(harness, *rules) as user, opened(harness, **user) as sink:
            assert publish(sink, harness.records("a")) == []

    def test_of_the_page_are_enough_for_exactly_once_and_for_replicas(self, harness: RedisHarness) -> None:
        rules = ("~a", "+xadd", "+multi", "+exec", "+xrange", "+xrevrange", "+wait")
        more = {"exactly_once": True, "wait_replicas": 1, "timeout_ms": 1500}
        with limited_to(harness, *rules) as user:
            with opened(harness, **user, exactly_once=True) as sink:
                assert publish(sink, harness.records("a")) == []
                assert publish(sink, harness.records("a")) == []
            with opened(harness, **user, **more) as sink, pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a"))
        assert caught.value.code == "not_replicated"

    def test_of_the_page_are_enough_for_the_source(self, harness: RedisHarness) -> None:
        source = RedisSourceHarness(harness)
        source.send([Sent(b'{"n": 1}')])
        rules = (f"~{source.stream}", "+xgroup", "+xreadgroup", "+xautoclaim", "+xack")
        with limited_to(harness, *rules) as user, opened_source(source, **user) as opened_one:
            opened_one.ack(take(opened_one, 1))

    def test_of_the_page_are_enough_on_a_cluster(self, redis_cluster: RedisCluster) -> None:
        cluster = RedisClusterHarness(redis_cluster)
        stream = redis_cluster.key_on(0, "limited")
        rules = (f"~{stream}", "+xadd", "+multi", "+exec", "+cluster")
        with limited_to(cluster, *rules, stream=stream) as user, opened(cluster, **user) as sink:
            assert publish(sink, cluster.records(stream)) == []

    def test_that_are_missing_are_said(self, harness: RedisHarness) -> None:
        with limited_to(harness, "~a", "+xadd", "+multi", "+exec") as user, opened(harness, **user) as sink:
            with pytest.raises(NotConnected, match=r"(?i)no permissions") as caught:
                publish(sink, harness.records("a", "b"))
            assert caught.value.code == "forbidden"
            assert harness.entries("a") == []

    def test_that_are_missing_are_a_matter_of_configuration_for_the_source(self, harness: RedisHarness) -> None:
        source = RedisSourceHarness(harness)
        with limited_to(harness, "~*") as user, pytest.raises(ConfigError, match="permissions"):
            source.make_source(**user).open({})


class TestMistakes:
    def test_no_password(self, harness: RedisHarness) -> None:
        with pytest.raises(ConfigError, match=r"(?i)authentication required"):
            harness.make_sink(url=f"redis://127.0.0.1:{harness.server.port}").open()

    def test_a_database_that_is_not_there(self, harness: RedisHarness) -> None:
        with pytest.raises(ConfigError, match="out of range"):
            harness.make_sink(url=harness.server.url.removesuffix("0") + "99").open()

    def test_a_server_that_is_no_cluster(self, harness: RedisHarness) -> None:
        with pytest.raises(ConfigError, match="cluster support disabled"):
            harness.make_sink(cluster=True).open()

    def test_a_cluster_that_is_not_said_to_be_one(self, redis_cluster: RedisCluster) -> None:
        cluster = RedisClusterHarness(redis_cluster)
        url = f"redis://:{redis_cluster.password}@127.0.0.1:{redis_cluster.nodes[0].port}"
        with opened(cluster, url=url) as sink, pytest.raises(NotConnected) as caught:
            publish(sink, cluster.records(redis_cluster.key_on(1, "elsewhere")))
        assert caught.value.code == "moved"

    def test_a_key_that_is_no_stream(self, harness: RedisHarness) -> None:
        source = RedisSourceHarness(harness)
        with harness.client() as client:
            client.set(source.stream, "text")
        with pytest.raises(ConfigError, match="WRONGTYPE"):
            source.make_source().open({})

    def test_a_server_that_is_not_there(self, harness: RedisHarness) -> None:
        with pytest.raises(NotConnected, match="refused"):
            harness.make_sink(url="redis://:p@127.0.0.1:1").open()

    def test_another_database_is_used_when_named(self, harness: RedisHarness) -> None:
        with opened(harness, url=harness.server.url.removesuffix("0") + "3") as sink:
            assert publish(sink, harness.records("a")) == []
        assert harness.entries("a") == []


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[str, str]:
        return make_certificate(tmp_path)

    def url(self, harness: RedisHarness, port: int) -> str:
        return f"rediss://:{harness.server.password}@127.0.0.1:{port}"

    def test_a_certificate_must_be_trusted(self, harness: RedisHarness, certificate: tuple[str, str]) -> None:
        with tls_before(harness.server.port, *certificate) as port:
            url = self.url(harness, port)
            with pytest.raises(ConfigError, match=r"(?i)certificate.verify.failed"):
                harness.make_sink(url=url).open()
            for trusting in ({"tls_ca": certificate[0]}, {"tls_verify": False}):
                with opened(harness, url=url, **trusting) as sink:
                    assert publish(sink, harness.records("a")) == []
            with pytest.raises(ConfigError, match=r"(?i)certificate.verify.failed"):
                harness.make_sink(url=url.replace("127.0.0.1", "localhost"), tls_ca=certificate[0]).open()

    def test_our_own_certificate_is_shown(self, harness: RedisHarness, certificate: tuple[str, str]) -> None:
        cert, key = certificate
        with tls_before(harness.server.port, cert, key, client_ca=cert) as port:
            keys = {"url": self.url(harness, port), "tls_ca": cert}
            with opened(harness, **keys, tls_cert=cert, tls_key=key) as sink:
                assert publish(sink, harness.records("a")) == []
            with pytest.raises((ConfigError, NotConnected)):
                harness.make_sink(**keys).open()

    def test_a_server_without_tls_is_refused(self, harness: RedisHarness) -> None:
        with pytest.raises((ConfigError, NotConnected)):
            harness.make_sink(url=self.url(harness, harness.server.port), timeout_ms=500).open()


@pytest.mark.parametrize("library", ["redis", "hiredis"])
def test_importing_sink_and_source_needs_no_client_library(library: str) -> None:
    # sink_class() serves pipelines that never use Redis, where it is not installed.
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from relay.backends.redis.sink import RedisSink\n"
        "from relay.backends.redis.source import RedisSource\n"
        "from relay.errors import MissingExtra\n"
        "for kind, keys in ((RedisSink, {}), (RedisSource, {'stream': 'a'})):\n"
        "    made = kind(kind.config_model.model_validate({'url': 'redis://h'} | keys), 'p')\n"
        "    try: made.open(*([{}] if keys else []))\n"
        "    except MissingExtra as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.count("tide-relay[redis]") == 2
