"""The keys by which sink and source of NATS connect, and what they mean to the client.

Imports nats-py only when it connects.
"""

import ssl
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from relay.backends.common.tls import TlsKeys, tls_context
from relay.errors import ConfigError

if TYPE_CHECKING:
    from nats.aio.client import RawCredentials


def _urls(value: Any) -> Any:
    return [url.strip() for url in value.split(",")] if isinstance(value, str) else value


class NatsKeys(TlsKeys):
    """For a configuration to inherit from, beside its own base."""

    url: Annotated[
        list[str],
        BeforeValidator(_urls),
        Field(min_length=1, repr=False, validation_alias=AliasChoices("url", "nats_url", "servers")),
    ]
    """One or more servers of one cluster, as a list or separated by commas."""
    stream: Annotated[str, Field(pattern=r"^[^\s.*>/\\]+$", validation_alias=AliasChoices("stream", "nats_stream"))]
    user: str | None = None
    password: Annotated[str | None, Field(repr=False)] = None
    token: Annotated[str | None, Field(repr=False)] = None
    creds_file: str | None = None
    """Path of a `.creds` file (user JWT and seed)."""
    nkey_seed: Annotated[str | None, Field(repr=False)] = None
    """The seed itself (`SU...`), not a path."""
    tls_first: bool = False
    """Begin with TLS, for servers configured with `handshake_first`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.password is not None and self.user is None:
            raise ValueError("password needs user")
        return self


def connect_options(keys: NatsKeys, where: str, timeout_ms: int) -> dict[str, Any]:
    """The arguments of the client's `connect`. Raises ConfigError for a file that cannot be read or used."""
    return {
        "servers": list(keys.url),
        "user": keys.user,
        "password": keys.password,
        "token": keys.token,
        "user_credentials": _credentials(keys, where),
        "nkeys_seed_str": keys.nkey_seed,
        "tls": _tls(keys, where),
        "tls_handshake_first": keys.tls_first,
        "allow_reconnect": False,
        # Every server once and once more; 0 would mean for ever.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.05,
        "connect_timeout": timeout_ms / 1000,
        "ping_interval": 30,
    }


def _credentials(keys: NatsKeys, where: str) -> "RawCredentials | None":
    from nats.aio.client import RawCredentials

    if keys.creds_file is None:
        return None
    text = _read("creds_file", keys.creds_file, where)
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(f"{where}: creds_file {keys.creds_file!r} has no user JWT or no seed in it")
    return RawCredentials(text)


def _tls(keys: NatsKeys, where: str) -> ssl.SSLContext | None:
    wanted = keys.asks_for_tls or keys.tls_first or any(url.startswith(("tls://", "wss://")) for url in keys.url)
    return tls_context(keys, where) if wanted else None


def _read(key: str, path: str, where: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{where}: {key} {path!r} cannot be read: {reason}") from None
