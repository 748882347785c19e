"""The keys of NATS: of the connection, the sink and the source."""

import hashlib
import re
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from relay.backends.common.keys import AsciiHosts
from relay.backends.common.tls import TlsKeys
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig

_NOT_IN_A_NAME = re.compile(r"[^\w-]")


class NatsKeys(TlsKeys):
    """Mixed into the configuration of sink and source."""

    url: Annotated[
        AsciiHosts,
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


class NatsSinkConfig(NatsKeys, SinkConfig):
    create_stream: bool = False
    """Create the stream if it does not exist; the keys below say how. An existing stream is never changed."""
    stream_subjects: list[str] | None = None
    """Default: the stream's name, and everything below it (`orders`, `orders.>`)."""
    duplicate_window_ms: Annotated[int, Field(ge=100)] = 120_000
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 1_000
    """Records on the way without an acknowledgement."""
    strict_order: bool = False
    """Only for a stream to which no one else publishes."""


class NatsSourceConfig(NatsKeys, SourceConfig):
    consumer: Annotated[
        str | None, Field(pattern=r"^[^\s.*>/\\]+$", validation_alias=AliasChoices("consumer", "nats_consumer"))
    ] = None
    """The durable consumer. It belongs to this pipeline alone. Default: made from the pipeline's name."""
    subject: Annotated[str | None, Field(pattern=r"^[^\s]+$")] = None
    """Only messages of these subjects (wildcards allowed), of a consumer that is created here."""
    deliver_policy: Literal["all", "new", "last", "by_start_sequence"] = "all"
    """Where a consumer begins that is created here for the first time."""
    start_sequence: Annotated[int | None, Field(ge=1)] = None
    ack_wait_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 30_000
    """After how long the server sends again what was not acknowledged."""
    max_ack_pending: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """How many messages may be handed out without an acknowledgement."""
    create_consumer: bool = True
    """Create the consumer if it does not exist. An existing one is never changed."""

    @model_validator(mode="after")
    def _start_is_whole(self) -> Self:
        if (self.deliver_policy == "by_start_sequence") != (self.start_sequence is not None):
            raise ValueError("start_sequence and deliver_policy 'by_start_sequence' need each other")
        return self


def consumer_name(config: NatsSourceConfig, pipeline: str) -> str:
    """The consumer's name; one made from the pipeline's name is valid for NATS, and no other pipeline's."""
    if config.consumer is not None:
        return config.consumer
    name = _NOT_IN_A_NAME.sub("-", pipeline)
    if name != pipeline or len(name) > 200:
        name = f"{name[:200]}-{hashlib.sha256(pipeline.encode()).hexdigest()[:8]}"
    return f"tide-{name}"
