"""The keys of the NATS sink, and what they mean to the client. Imports nats-py only when it connects."""

import ssl
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from relay.errors import ConfigError
from relay.sinks.base import SinkConfig

if TYPE_CHECKING:
    from nats.aio.client import RawCredentials


def _urls(value: Any) -> Any:
    return [url.strip() for url in value.split(",")] if isinstance(value, str) else value


class NatsConfig(SinkConfig):
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
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True
    tls_first: bool = False
    """Begin with TLS, for servers configured with `handshake_first`."""
    create_stream: bool = False
    """Create the stream if it does not exist; the keys below say how. An existing stream is never changed."""
    stream_subjects: list[str] | None = None
    """Default: the stream's name, and everything below it (`orders`, `orders.>`)."""
    duplicate_window_ms: Annotated[int, Field(ge=100)] = 120_000
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 1_000
    """Records on the way without an acknowledgement."""
    strict_order: bool = False
    """Only for a stream to which nobody else publishes."""

    @model_validator(mode="after")
    def _is_whole(self) -> "NatsConfig":
        if self.password is not None and self.user is None:
            raise ValueError("password needs user")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other")
        return self


def connect_options(config: NatsConfig, where: str) -> dict[str, Any]:
    """The arguments of the client's `connect`. Raises ConfigError for a file that cannot be read or used."""
    return {
        "servers": list(config.url),
        "user": config.user,
        "password": config.password,
        "token": config.token,
        "user_credentials": _credentials(config, where),
        "nkeys_seed_str": config.nkey_seed,
        "tls": _tls(config, where),
        "tls_handshake_first": config.tls_first,
        "allow_reconnect": False,
        # Every server once and once more; 0 would mean for ever.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.05,
        "connect_timeout": config.timeout_ms / 1000,
        "ping_interval": 30,
    }


def _credentials(config: NatsConfig, where: str) -> "RawCredentials | None":
    from nats.aio.client import RawCredentials

    if config.creds_file is None:
        return None
    text = _read("creds_file", config.creds_file, where)
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(f"{where}: creds_file {config.creds_file!r} has no user JWT or no seed in it")
    return RawCredentials(text)


def _tls(config: NatsConfig, where: str) -> ssl.SSLContext | None:
    asked_for = config.tls_ca or config.tls_cert or config.tls_first or not config.tls_verify
    if not asked_for and not any(url.startswith(("tls://", "wss://")) for url in config.url):
        return None
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if getattr(config, key) is not None:
            _read(key, getattr(config, key), where)
    try:
        context = ssl.create_default_context(cafile=config.tls_ca)
        if config.tls_cert is not None:
            context.load_cert_chain(config.tls_cert, config.tls_key)
    except ssl.SSLError as error:
        raise ConfigError(f"{where}: tls_ca, tls_cert or tls_key is not usable: {error.reason}") from None
    if not config.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _read(key: str, path: str, where: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{where}: {key} {path!r} cannot be read: {reason}") from None
