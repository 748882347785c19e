"""Host names outside ASCII: IDNA 2008 in every place that takes a host, because IDNA 2003 leads to someone else's."""

from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.kafka.config import KafkaSinkConfig
from relay.backends.nats.config import NatsSinkConfig
from relay.backends.object_storage.config import ObjectStorageSinkConfig
from relay.backends.postgresql.config import InboxSinkConfig
from relay.backends.rabbitmq.config import RabbitmqSinkConfig, addresses
from relay.backends.redis.config import RedisSinkConfig
from relay.backends.sqs.config import SqsSinkConfig
from relay.backends.webhook.hosts import ascii_host
from relay.errors import ConfigError
from relay.hosts import ascii_conninfo, ascii_hosts, ascii_name
from relay.jobs.http import Hosts
from relay.jobs.pgrelay import PgRelayClient
from relay.settings import Settings

NAMES = [
    ("straße.de", "xn--strae-oqa.de"),
    ("faß.de", "xn--fa-hia.de"),
    ("Faß.DE", "xn--fa-hia.de"),
    ("βόλος.com", "xn--nxasmm1c.com"),
    ("نامه\u200cای.com", "xn--mgba3gch31f060k.com"),
    ("bücher.test", "xn--bcher-kva.test"),
    ("bücher。test", "xn--bcher-kva.test"),
    ("faß.de.", "xn--fa-hia.de."),
]
REFUSED = ["a\u200cb.com", "☃.net", "é..com", "é" * 60 + ".com", "é .com", "é_x.com", "xn--é.com", "\ud800.com", "é/x"]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_are_those_of_idna_2008(name: str, expected: str) -> None:
    assert ascii_name(name) == expected
    assert ascii_host(name) == expected.rstrip(".")
    assert Hosts([name, f"*.{name.rstrip('.')}"]).allow(expected.rstrip("."))


@pytest.mark.parametrize("name", REFUSED)
def test_what_dns_cannot_hold_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(ValueError, match="DNS cannot hold") as caught:
        ascii_name(name)
    assert name not in str(caught.value)
    with pytest.raises(ConfigError):
        ascii_host(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("faß.de", "xn--fa-hia.de"),
        ("faß.de:9092,straße.de", "xn--fa-hia.de:9092,xn--strae-oqa.de"),
        ("PLAINTEXT://faß.de:9092,SSL://b:1", "PLAINTEXT://xn--fa-hia.de:9092,SSL://b:1"),
        ("redis://ü:p%40ß@faß.de:6379/0", "redis://ü:p%40ß@xn--fa-hia.de:6379/0"),
        ("redis://:p@fa%C3%9F.de/0", "redis://:p@xn--fa-hia.de/0"),
        ("https://faß.de/ß?ß=ß", "https://xn--fa-hia.de/ß?ß=ß"),
        ("amqp://ß:ß@[::1]:5672/%2f", "amqp://ß:ß@[::1]:5672/%2f"),
        ("amqp://a@faß.de;amqp://b@c/ß", "amqp://a@xn--fa-hia.de;amqp://b@c/ß"),
        ("unix:///tmp/ß.sock", "unix:///tmp/ß.sock"),
        ("nats://${env:ß}@a%2e:4222", "nats://${env:ß}@a%2e:4222"),
        ("redis://www.ΒΌΛΟΣ", "redis://www.xn--nxasmq6b"),
    ],
)
def test_only_the_host_of_a_url_changes(text: str, expected: str) -> None:
    assert ascii_hosts(text) == expected


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("postgresql://ü:ß@faß.de,b:5433/ß", "xn--fa-hia.de,b"),
        ("postgresql://u@fa%C3%9F.de/d", "xn--fa-hia.de"),
        ("postgresql:///d?host=faß.de", "xn--fa-hia.de"),
        ("host=faß.de dbname=d", "xn--fa-hia.de"),
        ("host=/tmp/ß dbname=d", "/tmp/ß"),
        ("postgresql://u:ß@localhost/d", "localhost"),
    ],
)
def test_those_of_libpq_too(text: str, host: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    before, after = conninfo_to_dict(text), conninfo_to_dict(ascii_conninfo(text))
    assert after == before | {"host": host}
    assert conninfo_to_dict(Settings(postgres_url=text).postgres_url) == after
    assert conninfo_to_dict(PgRelayClient(text)._url) == after


def test_what_libpq_cannot_read_is_left_to_it() -> None:
    assert ascii_conninfo("postgresql://é:%zz@x/") == "postgresql://é:%zz@x/"


def hosts(host: str) -> list[Any]:
    """As the client of each backend is given it."""
    rabbitmq = RabbitmqSinkConfig(url=[f"amqp://u:p@{host}/%2f"], exchange="x")
    return [
        RedisSinkConfig(url=[f"redis://:p@{host}/0"]).addresses[0].host,
        addresses(rabbitmq, "x")[0].host,
        NatsSinkConfig(url=[f"nats://{host}:4222"], stream="s").url[0][7:-5],
        KafkaSinkConfig(brokers=f"{host}:9092").brokers[:-5],
        SqsSinkConfig(queue_url=f"https://{host}/1/q").queue_url[8:-4],
        ObjectStorageSinkConfig(bucket="bucket", endpoint_url=f"https://{host}").endpoint_url,
        InboxSinkConfig(inbox="i", postgres_url=f"postgresql://{host}/d").postgres_url,
        Settings(postgres_url="x", broker_url=f"redis://{host}/0").broker_url[8:-2],
    ]


def test_each_client_is_given_the_name_of_idna_2008() -> None:
    *others, endpoint, postgresql, broker = hosts("straße.de")
    assert {*others, broker} == {"xn--strae-oqa.de"}
    assert endpoint == "https://xn--strae-oqa.de"
    assert "host=xn--strae-oqa.de" in postgresql


@pytest.mark.parametrize("index", range(8))
def test_each_refuses_one_that_dns_cannot_hold(index: int) -> None:
    makers = [
        lambda host: RedisSinkConfig(url=[f"redis://:secret@{host}/0"]),
        lambda host: RabbitmqSinkConfig(url=[f"amqp://u:secret@{host}/%2f"], exchange="x"),
        lambda host: NatsSinkConfig(url=[f"nats://u:secret@{host}:4222"], stream="s"),
        lambda host: KafkaSinkConfig(brokers=f"{host}:9092"),
        lambda host: SqsSinkConfig(queue_url=f"https://{host}/1/q"),
        lambda host: ObjectStorageSinkConfig(bucket="bucket", endpoint_url=f"https://{host}"),
        lambda host: InboxSinkConfig(inbox="i", postgres_url=f"postgresql://u:secret@{host}/d"),
        lambda host: Settings(postgres_url="x", broker_url=f"redis://:secret@{host}/0"),
    ]
    with pytest.raises(ValidationError, match="DNS cannot hold") as caught:
        makers[index]("a\u200cb.com")
    assert "secret" not in str(caught.value)
