"""The keys of RabbitMQ: of the connection, the sink and the source."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from relay.backends.common.keys import Listed, has_reference
from relay.backends.common.tls import TlsKeys
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig
from relay.errors import ConfigError
from relay.hosts import ascii_hosts

KEY_HEADER = "relay-key"
"""The header in which a message's key travels: AMQP has no place for it."""


def _urls(value: Any) -> Any:
    return value.replace(";", ",") if isinstance(value, str) else value


class RabbitmqKeys(TlsKeys):
    url: Annotated[
        Listed,
        BeforeValidator(_urls),
        Field(min_length=1, repr=False, validation_alias=AliasChoices("url", "rabbitmq_url", "amqp_url")),
    ]
    """One or more nodes of one cluster, as a list or separated by commas; tried in this order."""
    user: str | None = None
    """With `password`, in place of those in the URL."""
    password: Annotated[str | None, Field(repr=False)] = None

    @field_validator("url")
    @classmethod
    def _can_be_read(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not has_reference(url):
                parse_url(url)
        return urls

    @model_validator(mode="after")
    def _keys_fit(self) -> "RabbitmqKeys":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password need each other")
        if self.asks_for_tls and not all(url.startswith("amqps://") or has_reference(url) for url in self.url):
            raise ValueError("the tls_ keys need a url that begins with amqps://")
        return self


def _no_integer(value: Any) -> Any:
    if isinstance(value, int):  # one beyond 64 bits: as a float it would be another number
        raise ValueError("an integer must fit in 64 bits")  # noqa: TRY004 (of pydantic's kind)
    return value


Fraction = Annotated[StrictFloat, BeforeValidator(_no_integer)]
HeaderValue = StrictStr | StrictBool | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Fraction
Name = Annotated[str, Field(max_length=255)]


class RabbitmqSinkConfig(RabbitmqKeys, SinkConfig):
    exchange: Annotated[Name, Field(validation_alias=AliasChoices("exchange", "rabbitmq_exchange"))] = ""
    """Empty: the default exchange, where the routing key is the name of a queue."""
    exchange_type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    """Of an exchange that is declared here."""
    declare: bool = False
    """Make the exchange, and `queue` if one is named, where they do not exist. What exists is never changed."""
    queue: Annotated[Name, Field(min_length=1)] | None = None
    """With `declare`: a durable queue that is bound to the exchange."""
    binding_key: Name = "#"
    mandatory: bool = True
    """A message that no queue takes is refused permanently; without this, the server drops it."""
    persistent: bool = True
    headers: dict[Annotated[str, Field(min_length=1)], HeaderValue] | None = None
    """Sent with each message; a message's own header of the same name wins."""
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 1_000
    """Records on the way without a confirmation."""
    max_message_bytes: Annotated[int, Field(ge=1, le=512 * 1024 * 1024)] = 128 * 1024 * 1024
    """The server's `max_message_size`, where it is lower than that: the server does not tell clients."""

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, HeaderValue] | None) -> dict[str, HeaderValue] | None:
        for name in headers or {}:
            if name in {"CC", "BCC"}:
                raise ValueError(f"{name} is a command to RabbitMQ, not a header: bind another queue instead")
            if len(name.encode()) > 255:
                raise ValueError(f"the name {name[:40]!r}... is longer than 255 bytes")
        return headers

    @model_validator(mode="after")
    def _declared_whole(self) -> "RabbitmqSinkConfig":
        if self.queue is not None and not self.declare:
            raise ValueError("queue is made only with declare; else leave it out, and bind a queue to the exchange")
        return self


class RabbitmqSourceConfig(RabbitmqKeys, SourceConfig):
    queue: Annotated[str, Field(min_length=1, max_length=255, validation_alias=AliasChoices("queue", "rabbitmq_queue"))]
    prefetch: Annotated[int, Field(ge=1, le=65_535, validation_alias=AliasChoices("prefetch", "prefetch_count"))] = 500
    """Messages on the way to us, or with us, without an acknowledgement."""
    declare: bool = False
    """Make the queue, durable, where it does not exist. One that exists is never changed."""
    queue_type: Literal["classic", "quorum"] = "classic"
    """Of a queue that is made here."""


@dataclass(frozen=True, slots=True)
class Address:
    """One node, and who we are there."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    tls: bool


def parse_url(url: str) -> Address:
    """`amqp://user:password@host:port/vhost`, every part but the scheme optional, as RabbitMQ's clients read it.

    Raises ValueError, which quotes nothing of the URL: it may hold a password.
    """
    try:
        url = ascii_hosts(url)
    except ValueError as error:
        raise ValueError(f"url {error}") from None
    try:
        parts = urlsplit(url)
    except ValueError:  # it would quote the password
        raise ValueError("url cannot be read; percent-encode special characters of a password") from None
    if parts.scheme not in {"amqp", "amqps"}:
        raise ValueError("url must begin with amqp:// or amqps://")
    if parts.query or parts.fragment:
        raise ValueError("url has a query or a fragment, which mean nothing here; percent-encode '?' and '#'")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("url has an invalid port; percent-encode special characters of a password") from None
    host = parts.hostname or "localhost"
    try:
        host.encode("idna")  # as a socket will
    except UnicodeError:
        raise ValueError("url has an invalid host") from None
    return Address(
        host=host,
        port=port or (5671 if parts.scheme == "amqps" else 5672),
        virtual_host=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        tls=parts.scheme == "amqps",
    )


def addresses(keys: RabbitmqKeys, where: str) -> list[Address]:
    """Raises ConfigError for a URL that cannot be read."""
    found = []
    for url in keys.url:
        try:
            address = parse_url(url)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        if keys.user is not None and keys.password is not None:
            address = Address(address.host, address.port, address.virtual_host, keys.user, keys.password, address.tls)
        found.append(address)
    return found
