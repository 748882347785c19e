"""What the Kafka sink and the Kafka source share: the keys of the connection, and how a client comes to be.

librdkafka connects by itself and for ever; what is wrong reaches us by its error callback alone. `connect` waits until
a broker has answered, and otherwise says why none did.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from relay.backends.kafka.errors import NEEDS_OPERATOR, verdict
from relay.errors import ConfigError, MissingExtra, NotConnected, RelayError
from relay.masking import mask

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

Client = TypeVar("Client")

# How long one question to a client that is not connected yet may block: then its errors are looked at.
_LOOK_SECONDS = 0.1
# A topic that every cluster has. Asking for one topic is cheap, asking for all of a large cluster is not.
_ANY_TOPIC = "__consumer_offsets"

# librdkafka's keys that are given by keys of ours, decide what is promised, call back, or load code.
_TAKEN = frozenset({
    "acks", "allow.auto.create.topics", "auto.commit.enable", "auto.offset.reset", "bootstrap.servers",
    "builtin.features", "client.id", "compression.codec", "compression.type", "delivery.report.only.error",
    "delivery.timeout.ms", "dr_cb", "dr_msg_cb", "enable.auto.commit", "enable.auto.offset.store",
    "enable.gapless.guarantee", "enable.idempotence", "enable.partition.eof", "fetch.max.bytes",
    "fetch.message.max.bytes", "group.id", "group.instance.id", "group.protocol", "isolation.level", "linger.ms",
    "max.in.flight", "max.in.flight.requests.per.connection", "max.partition.fetch.bytes", "message.max.bytes",
    "message.send.max.retries", "message.timeout.ms", "metadata.broker.list", "offset.store.method", "opaque",
    "plugin.library.paths", "queue.buffering.max.ms", "queued.max.messages.kbytes", "queued.min.messages",
    "request.required.acks", "request.timeout.ms", "retries", "sasl.mechanism", "sasl.mechanisms", "sasl.password",
    "sasl.username", "security.protocol", "session.timeout.ms", "socket.timeout.ms", "ssl.ca.location",
    "ssl.certificate.location", "ssl.endpoint.identification.algorithm", "ssl.engine.id", "ssl.engine.location",
    "ssl.key.location", "ssl.key.password", "ssl.providers", "enable.ssl.certificate.verification",
    "transaction.timeout.ms", "transactional.id",
})  # fmt: skip


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _checked_options(value: dict[str, Any]) -> dict[str, Any]:
    taken = sorted(key for key in value if key in _TAKEN or key.endswith("_cb"))
    if taken:
        raise ValueError(
            f"{', '.join(taken)} cannot be set here: it has a key of its own, or delivery depends on it (see the page "
            "of Kafka in the documentation)"
        )
    return value


class KafkaKeys(BaseModel):
    """The keys of a connection."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    brokers: Annotated[
        str,
        BeforeValidator(_joined),
        Field(min_length=1, validation_alias=AliasChoices("brokers", "kafka_brokers", "bootstrap_servers")),
    ]
    """`host:port`, several of one cluster separated by commas, or as a list."""
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] | None = None
    """Default: by the other keys. With `sasl_*` and without this key the connection is encrypted."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Default: PLAIN where there is a user name."""
    sasl_username: str | None = None
    sasl_password: Annotated[str | None, Field(repr=False)] = None
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    ssl_key_password: Annotated[str | None, Field(repr=False)] = None
    ssl_verify: bool = True
    librdkafka: Annotated[
        dict[str, str | int | float | bool], BeforeValidator(_checked_options), Field(repr=False)
    ] = {}
    """More of librdkafka's own configuration, passed on as it is."""

    @model_validator(mode="after")
    def _connection_is_whole(self) -> "KafkaKeys":
        if (self.sasl_username is None) != (self.sasl_password is None):
            raise ValueError("sasl_username and sasl_password need each other")
        if self.sasl_mechanism is not None and self.sasl_username is None:
            raise ValueError("sasl_mechanism needs sasl_username and sasl_password")
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("ssl_cert and ssl_key need each other")
        return self


def connection_options(config: KafkaKeys, pipeline: str) -> dict[str, Any]:
    """librdkafka's keys of the connection, with the person's own before them.

    Raises ConfigError for a file that cannot be read, which librdkafka tells in the words of OpenSSL.
    """
    for key in ("ssl_ca", "ssl_cert", "ssl_key"):
        path = getattr(config, key)
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"pipeline {pipeline!r}: {key} {path!r} cannot be read: is it there, and may we read it?")
    ssl = config.ssl_ca or config.ssl_cert or not config.ssl_verify
    default = "sasl_ssl" if config.sasl_username else "ssl" if ssl else "plaintext"
    options = {
        "bootstrap.servers": config.brokers,
        "client.id": f"tide-relay {pipeline}",
        "security.protocol": config.security_protocol or default,
        "sasl.mechanism": (config.sasl_mechanism or "PLAIN") if config.sasl_username else None,
        "sasl.username": config.sasl_username,
        "sasl.password": config.sasl_password,
        "ssl.ca.location": config.ssl_ca,
        "ssl.certificate.location": config.ssl_cert,
        "ssl.key.location": config.ssl_key,
        "ssl.key.password": config.ssl_key_password,
        "enable.ssl.certificate.verification": config.ssl_verify,
        "allow.auto.create.topics": False,
        "log_level": 0,  # what matters comes by the error callback
    }
    return {"reconnect.backoff.max.ms": 1000} | config.librdkafka | {k: v for k, v in options.items() if v is not None}


class Troubles:
    """What the client complained of by its error callback, which any thread that asks the client something may run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[KafkaError] = []

    def __call__(self, error: "KafkaError") -> None:
        with self._lock:
            # That all brokers are down says less than what came before it; a person's matter says most.
            self._all = [*self._all[-9:], error]

    def forget(self) -> None:
        with self._lock:
            self._all = []

    @property
    def gravest(self) -> "KafkaError | None":
        """What a person must mend; else the last that says something; None when there was nothing."""
        with self._lock:
            seen = list(self._all)
        for error in reversed(seen):
            if verdict(error)[1] in NEEDS_OPERATOR:
                return error
        telling = [error for error in seen if error.name() != "_ALL_BROKERS_DOWN"]
        return telling[-1] if telling else seen[-1] if seen else None

    @property
    def unsendable(self) -> bool:
        """Waiting longer will not connect us."""
        with self._lock:
            return any(e.name() == "_ALL_BROKERS_DOWN" or verdict(e)[1] in NEEDS_OPERATOR for e in self._all)


def translated(error: "KafkaError", where: str, *, opening: bool = False) -> RelayError:
    """Our error for the client's: ConfigError only while opening, NotConnected otherwise."""
    _, code = verdict(error)
    text = mask(f"{where}: {error.str()}")
    return ConfigError(text) if opening and code in NEEDS_OPERATOR else NotConnected(text, code=code)


def connect(
    make: Callable[[dict[str, Any]], Client],
    options: dict[str, Any],
    where: str,
    seconds: float,
    troubles: Troubles | None = None,
) -> Client:
    """A client that some broker has answered. Raises ConfigError or NotConnected, and leaves nothing behind.

    `troubles` gets what the client complains of; what it complained of before it was connected is forgotten.
    """
    try:
        from confluent_kafka import KafkaException
    except ImportError as error:
        raise MissingExtra("kafka", "kafka") from error

    troubles = troubles or Troubles()
    deadline = time.monotonic() + seconds
    try:
        client: Any = make(options | {"error_cb": troubles})
    except KafkaException as error:
        # A file that cannot be read, an unknown key of librdkafka: it says which.
        raise ConfigError(mask(f"{where}: {error.args[0].str()}")) from None
    while True:
        try:
            client.list_topics(_ANY_TOPIC, timeout=min(_LOOK_SECONDS, max(0.01, deadline - time.monotonic())))
        except KafkaException as error:
            client.poll(0)
            if not troubles.unsendable and time.monotonic() < deadline:
                continue
            known = troubles.gravest
            if known is not None:
                raise translated(known, where, opening=True) from None
            text = f"{where}: no broker of {options['bootstrap.servers']} answered within {seconds:.1f} s"
            raise NotConnected(mask(f"{text} ({error.args[0].str()})"), code="timeout") from None
        else:
            troubles.forget()
            found: Client = client
            return found
