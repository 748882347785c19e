"""The keys of Redis: of the connection, the sink and the source."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator

from relay.backends.common.keys import Listed, has_reference
from relay.backends.common.tls import TlsKeys, tls_context
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig
from relay.hosts import ascii_hosts

_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
_DEFAULT_PORT = 6379

LARGEST_TEXT_BYTES = 512 * 1024 * 1024
"""A server's default `proto-max-bulk-len`."""


@dataclass(frozen=True, slots=True)
class Address:
    """One URL, understood."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    encrypted: bool
    cluster: bool


class RedisKeys(TlsKeys):
    url: Annotated[
        Listed,
        Field(min_length=1, repr=False, validation_alias=AliasChoices("url", "redis_url")),
    ]
    """`redis://`, or `rediss://` for TLS. For a cluster: one or more of its nodes, as a list or separated by commas."""
    cluster: bool = False
    """The servers are a Redis Cluster; `redis+cluster://` says the same."""
    username: str | None = None
    """An ACL user; wins over the URL's."""
    password: Annotated[str | None, Field(repr=False)] = None

    @field_validator("url")
    @classmethod
    def _are_urls(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not has_reference(url):
                address_of(url)
        return urls

    @model_validator(mode="after")
    def _is_whole(self) -> "RedisKeys":
        if self.username is not None and self.password is None:
            raise ValueError("username needs password")
        if any(map(has_reference, self.url)):
            return self
        addresses = self.addresses
        if len(addresses) > 1 and not self.is_cluster:
            raise ValueError("several urls are for a cluster: set cluster to true, or name one server")
        if self.is_cluster and any(address.db for address in addresses):
            raise ValueError("a cluster has the database 0 alone: take the number out of url")
        if self.asks_for_tls and not all(address.encrypted for address in addresses):
            raise ValueError("tls keys need a url that begins with rediss://")
        return self

    @property
    def addresses(self) -> list[Address]:
        return [address_of(url) for url in self.url]

    @property
    def is_cluster(self) -> bool:
        return self.cluster or any(address.cluster for address in self.addresses)


class RedisSinkConfig(RedisKeys, SinkConfig):
    maxlen: Annotated[int | None, Field(ge=1)] = None
    """Keep about so many entries in each stream; None keeps all."""
    approximate: bool = True
    """Trim when it costs nothing (`~`), so that a stream may be longer than `maxlen` by some hundred entries."""
    exactly_once: bool = False
    """Entry ids are made from message ids, `<id>-0`, which Redis takes once. No one else may write to the streams."""
    wait_replicas: Annotated[int, Field(ge=0, le=100)] = 0
    """Delivered means: received by so many replicas."""


class RedisSourceConfig(RedisKeys, SourceConfig):
    stream: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("stream", "redis_stream"))]
    group: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("group", "consumer_group"))] = "tide-relay"
    """Made if it does not exist. Two pipelines of one group share the entries between them: give each its own."""
    consumer: Annotated[str | None, Field(min_length=1)] = None
    """Default: the pipeline's name, so that each worker goes on with what another one left."""
    start: Annotated[str, Field(pattern=r"^(0|\$|[0-9]+(-[0-9]+)?)$")] = "0"
    """Where a new group begins: `0` with the stream, `$` with what comes from now on, or after an entry's id."""
    create_stream: bool = False
    """Make the stream if it does not exist, empty."""
    claim_idle_ms: Annotated[int, Field(ge=1, le=2**53)] = 60_000
    """What another consumer of the group received and left without acknowledgement for so long is taken over."""
    body_field: Annotated[str | None, Field(min_length=1)] = None
    """The field that holds the body, in entries of producers that know nothing of this project."""


def address_of(url: str) -> Address:
    """Raises ValueError that says what is wrong, without the URL: it may hold a password."""
    try:
        url = ascii_hosts(url)
    except ValueError as error:
        raise ValueError(f"url {error}") from None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        raise ValueError("url cannot be read; write redis://user:password@host:6379/0") from None
    if parts.scheme not in _SCHEMES or not host:
        raise ValueError(f"url must be redis://host:port/db; known schemes: {', '.join(_SCHEMES)}")
    if parts.query or parts.fragment:
        raise ValueError("url has options behind a '?' or '#': use the keys username, password, tls_..., timeout_ms")
    db = parts.path.strip("/")
    if db and not (db.isascii() and db.isdigit()):
        raise ValueError("url must end with the number of a database, such as /0, or with none")
    return Address(
        host=unquote(host),
        port=port,
        db=int(db or 0),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        encrypted=parts.scheme.startswith("rediss"),
        cluster=parts.scheme.endswith("+cluster"),
    )


def connect_options(keys: RedisKeys, address: Address, where: str) -> dict[str, Any]:
    """The arguments of redis-py's connection. Raises ConfigError for a file that cannot be read or used."""
    options: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "db": address.db,
        "username": address.username if keys.username is None else keys.username,
        "password": address.password if keys.password is None else keys.password,
        "protocol": 2,
    }
    if address.encrypted:
        tls_context(keys, where)  # the client would say the same of each file, and not which
        options |= {
            "ssl_ca_certs": keys.tls_ca,
            "ssl_certfile": keys.tls_cert,
            "ssl_keyfile": keys.tls_key,
            "ssl_cert_reqs": "required" if keys.tls_verify else "none",
            "ssl_check_hostname": keys.tls_verify,
        }
    return options
