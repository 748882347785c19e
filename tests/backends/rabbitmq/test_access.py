"""Who may connect to RabbitMQ, and how: users, virtual hosts, TLS. Sink and source find their server in one way."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.errors import ConfigError, NotConnected
from relay.local.server_process import free_port
from tests.backends.rabbitmq.harness import RabbitmqHarness
from tests.backends.rabbitmq.source_harness import RabbitmqSourceHarness
from tests.backends.steps import opened, publish
from tests.services.rabbitmq import RabbitmqServer


@pytest.fixture
def harness(rabbitmq_server: RabbitmqServer) -> RabbitmqHarness:
    return RabbitmqHarness(rabbitmq_server)


def address(harness: RabbitmqHarness) -> str:
    return str(harness.config()["url"]).partition("@")[2]


class TestWhoWeAre:
    def test_keys_come_before_the_url(self, harness: RabbitmqHarness) -> None:
        password = harness.broker.server.password
        with opened(harness, url=f"amqp://unknown:wrong@{address(harness)}", user="tide", password=password) as sink:
            assert publish(sink, harness.records("a")) == []

    def test_a_virtual_host_that_is_not_there(self, harness: RabbitmqHarness) -> None:
        url = str(harness.config()["url"]).replace("/%2F", "/nowhere")
        with pytest.raises(ConfigError, match="nowhere") as caught:
            harness.make_sink(url=url).open()
        assert harness.broker.server.password not in str(caught.value)

    def test_a_user_without_permissions(self, harness: RabbitmqHarness, rabbitmq_server: RabbitmqServer) -> None:
        source_harness = RabbitmqSourceHarness(rabbitmq_server)
        harness.broker.make_queue(harness.name, harness.name)
        limited = f"limited-{harness.name}"
        auth = "rabbit_auth_backend_internal"
        harness.broker.tell(
            f'{auth}:add_user(<<"{limited}">>, <<"p4ssw0rd">>, <<"t">>), '
            f'{auth}:set_permissions(<<"{limited}">>, <<"/">>, <<"">>, <<"">>, <<"">>, <<"t">>)'
        )
        who = {"user": limited, "password": "p4ssw0rd"}
        with (
            opened(harness, declare=False, queue=None, **who) as sink,
            pytest.raises(NotConnected, match="refused") as caught,
        ):
            publish(sink, harness.records("a"))
        assert caught.value.code == "forbidden"
        with pytest.raises(ConfigError, match="refused"):
            harness.make_sink(queue=f"{harness.name}-new", **who).open()
        source = source_harness.make_source(**who)
        with pytest.raises(ConfigError, match="refused"):
            source.open({})
        source.close()


class TestTls:
    @pytest.fixture
    def ca(self, tmp_path: Path) -> str:
        return str(tmp_path / "cert.pem")

    @pytest.fixture
    def url(self, harness: RabbitmqHarness, ca: str, tmp_path: Path) -> str:
        """Of a listener with TLS."""
        key, port = str(tmp_path / "key.pem"), free_port()
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {ca} -days 2 -subj /CN=rabbitmq"
        subprocess.run(
            [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60
        )
        files = f'[{{certfile, "{ca}"}}, {{keyfile, "{key}"}}]'
        harness.broker.tell(f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}, inet}}, {files}, 1)')
        return f"amqps://tide:{harness.broker.server.password}@127.0.0.1:{port}"

    def test_a_certificate_must_be_trusted(
        self, harness: RabbitmqHarness, rabbitmq_server: RabbitmqServer, url: str, ca: str
    ) -> None:
        with pytest.raises(ConfigError, match=r"(?i)certificate verify failed"):
            harness.make_sink(url=url).open()
        with pytest.raises(ConfigError, match="mismatch"):
            harness.make_sink(url=url.replace("127.0.0.1", "localhost"), tls_ca=ca).open()
        body = b"x" * 1_000_000
        ways: list[dict[str, Any]] = [{"tls_ca": ca}, {"tls_verify": False}]
        for number, trusting in enumerate(ways, 1):
            with opened(harness, url=url, **trusting) as sink:
                assert publish(sink, harness.records(*"abc", body=body)) == []
            assert harness.broker.count(harness.name) == 3 * number
        source = RabbitmqSourceHarness(rabbitmq_server).make_source(url=url, tls_ca=ca, queue=harness.name)
        source.open({})
        bodies: list[bytes] = []
        while len(bodies) < 6:
            bodies += [message.body for message in source.receive(10, 10)]
        source.close()
        assert bodies == [body] * 6
        self.assert_a_port_is_what_it_is(harness.make_sink, url)

    def assert_a_port_is_what_it_is(self, make_sink: Callable[..., Any], url: str) -> None:
        """Checked with the listener that is there, because each costs a second."""
        with pytest.raises(NotConnected):
            make_sink(url=url.replace("amqps", "amqp"), timeout_ms=2000).open()
        plain = str(make_sink()._config.url[0])
        with pytest.raises((ConfigError, NotConnected)):
            make_sink(url=plain.replace("amqp", "amqps"), timeout_ms=2000).open()
