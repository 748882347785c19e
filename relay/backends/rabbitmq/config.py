"""The keys by which the RabbitMQ sink and source find their server. Imports no client library."""

from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from relay.backends.common.tls import TlsKeys
from relay.errors import ConfigError

KEY_HEADER = "relay-key"
"""The header in which a message's key travels: AMQP has no place for it."""


def _urls(value: Any) -> Any:
    return [url.strip() for url in value.replace(";", ",").split(",")] if isinstance(value, str) else value


class RabbitmqKeys(TlsKeys):
    url: Annotated[
        list[str],
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
            if "${" not in url:  # what a reference stands for is seen when it is resolved
                parse_url(url)
        return urls

    @model_validator(mode="after")
    def _keys_fit(self) -> "RabbitmqKeys":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password need each other")
        if self.asks_for_tls and not all(url.startswith(("amqps://", "${")) for url in self.url):
            raise ValueError("the tls_ keys need a url that begins with amqps://")
        return self


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
    parts = urlsplit(url)
    if parts.scheme not in {"amqp", "amqps"}:
        raise ValueError("url must begin with amqp:// or amqps://")
    if parts.query or parts.fragment:
        raise ValueError("url has a query or a fragment, which mean nothing here; percent-encode '?' and '#'")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("url has a port that is no number; percent-encode special characters of a password") from None
    host = parts.hostname or "localhost"
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("url has a host that cannot be one") from None
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
