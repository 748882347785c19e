import inspect
import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.common.tls import tls_context
from relay.backends.rabbitmq.config import Address, RabbitmqSinkConfig, RabbitmqSourceConfig, addresses, parse_url
from relay.backends.rabbitmq.sink import RabbitmqSink
from relay.backends.rabbitmq.source import RabbitmqSource
from relay.errors import ConfigError


def config(**keys: Any) -> RabbitmqSinkConfig:
    return RabbitmqSinkConfig.model_validate({"url": "amqp://localhost"} | keys)


class TestKeys:
    @pytest.mark.parametrize("url", ["url", "rabbitmq_url", "amqp_url"])
    @pytest.mark.parametrize("exchange", ["exchange", "rabbitmq_exchange"])
    def test_both_spellings_are_accepted(self, url: str, exchange: str) -> None:
        made = RabbitmqSinkConfig.model_validate({url: "amqp://a", exchange: "orders"})
        assert (made.url, made.exchange) == (["amqp://a"], "orders")

    @pytest.mark.parametrize("queue", ["queue", "rabbitmq_queue"])
    def test_both_spellings_are_accepted_by_the_source(self, queue: str) -> None:
        made = RabbitmqSourceConfig.model_validate({"url": "amqp://a", queue: "orders", "prefetch_count": 7})
        assert (made.queue, made.prefetch) == ("orders", 7)

    @pytest.mark.parametrize("value", ["amqp://a, amqp://b", "amqp://a;amqp://b", ["amqp://a", "amqp://b"]])
    def test_several_nodes_are_a_list_or_separated(self, value: Any) -> None:
        assert config(url=value).url == ["amqp://a", "amqp://b"]

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ({"url": []}, "at least 1"),
            ({"url": "http://a"}, "amqp://"),
            ({"url": "amqp://u:hunter2@a:port"}, "port"),
            ({"url": "amqp://u:hun?ter2@a"}, "percent-encode"),
            ({"url": "amqp://u:hunter2@a..b"}, "host"),
            ({"user": "u"}, "password"),
            ({"url": "amqps://a", "tls_cert": "/cert"}, "tls_key"),
            ({"tls_ca": "/ca"}, "amqps://"),
            ({"tls_verify": False}, "amqps://"),
            ({"queue": "orders"}, "declare"),
            ({"exchange": "x" * 256}, "255"),
            ({"exchange_type": "fan"}, "fanout"),
            ({"headers": {"CC": "a"}}, "CC"),
            ({"headers": {"x" * 256: "a"}}, "255"),
            ({"headers": {"a": 2**63}}, "headers"),
            ({"headers": {"a": ["b"]}}, "headers"),
            ({"max_in_flight": 0}, "max_in_flight"),
            ({"exchanges": "x"}, "exchanges"),
        ],
    )
    def test_what_cannot_work_is_refused(self, keys: dict[str, Any], says: str) -> None:
        with pytest.raises(ValidationError) as caught:
            config(**keys)
        assert says in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_what_a_reference_stands_for_is_not_judged_before(self) -> None:
        assert config(url="${env:URL}", tls_ca="/ca").url == ["${env:URL}"]

    def test_secrets_are_not_in_its_text(self) -> None:
        made = config(url="amqp://u:hidden1@a", user="u", password="hidden2")
        assert "hidden" not in repr(made) + str(made) + repr(addresses(made, "here"))


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("amqp://", Address("localhost", 5672, "/", "guest", "guest", False)),
            ("amqp://h", Address("h", 5672, "/", "guest", "guest", False)),
            ("amqp://h/", Address("h", 5672, "/", "guest", "guest", False)),
            ("amqp://h/%2F", Address("h", 5672, "/", "guest", "guest", False)),
            ("amqp://h:1/a%2Fb", Address("h", 1, "a/b", "guest", "guest", False)),
            ("amqps://u%40x:p%3A%2F@h/v", Address("h", 5671, "v", "u@x", "p:/", True)),
            ("amqp://[::1]:7/v", Address("::1", 7, "v", "guest", "guest", False)),
        ],
    )
    def test_are_read_as_the_servers_clients_read_them(self, url: str, address: Address) -> None:
        assert parse_url(url) == address

    def test_user_and_password_of_their_own_win(self) -> None:
        (address,) = addresses(config(url="amqp://u:p@h", user="me", password="mine"), "here")
        assert (address.user, address.password) == ("me", "mine")

    def test_that_come_out_of_a_reference_are_a_matter_of_configuration(self) -> None:
        # Resolved, it may be anything.
        made = config().model_copy(update={"url": ["hunter2"]})
        with pytest.raises(ConfigError, match="here: url must begin with") as caught:
            addresses(made, "here")
        assert "hunter2" not in str(caught.value)


class TestTls:
    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ConfigError, match="tls_ca '/nowhere/file' cannot be read: No such file"):
            tls_context(config(url="amqps://a", tls_ca="/nowhere/file"), "here")

    def test_a_file_without_a_certificate_is_a_matter_of_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_text("not a certificate")
        with pytest.raises(ConfigError, match="tls_ca"):
            tls_context(config(url="amqps://a", tls_ca=str(tmp_path / "ca")), "here")

    def test_certificates_are_verified_unless_configured_otherwise(self) -> None:
        verifying = tls_context(config(url="amqps://a"), "here")
        assert (verifying.verify_mode, verifying.check_hostname) == (ssl.CERT_REQUIRED, True)
        trusting = tls_context(config(url="amqps://a", tls_verify=False), "here")
        assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("kind", [RabbitmqSink, RabbitmqSource])
def test_importing_needs_no_client_library(kind: type) -> None:
    # The table of sinks serves pipelines that never use RabbitMQ, where it is not installed.
    assert "amqp" not in vars(inspect.getmodule(kind))
