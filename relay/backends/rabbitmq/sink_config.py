"""The keys of the RabbitMQ sink."""

from typing import Annotated, Any, Literal

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

from relay.backends.rabbitmq.config import RabbitmqKeys
from relay.backends.sink import SinkConfig


def _no_integer(value: Any) -> Any:
    if isinstance(value, int):  # one beyond 64 bits: as a float it would be another number
        raise ValueError("an integer must fit in 64 bits")  # noqa: TRY004 (of pydantic's kind)
    return value


Fraction = Annotated[StrictFloat, BeforeValidator(_no_integer)]
HeaderValue = StrictStr | StrictBool | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Fraction
Name = Annotated[str, Field(max_length=255)]


class RabbitmqConfig(RabbitmqKeys, SinkConfig):
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
    """A message that no queue takes is refused for good; without, it is dropped by the server."""
    persistent: bool = True
    headers: dict[Annotated[str, Field(min_length=1)], HeaderValue] | None = None
    """Sent with each message; a message's own header of the same name wins."""
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 1_000
    """Records on the way without a confirmation."""
    max_message_bytes: Annotated[int, Field(ge=1, le=512 * 1024 * 1024)] = 128 * 1024 * 1024
    """The server's `max_message_size`, where it is lower than that: the server tells nobody."""

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
    def _declared_whole(self) -> "RabbitmqConfig":
        if self.queue is not None and not self.declare:
            raise ValueError("queue is made only with declare; else leave it out, and bind a queue to the exchange")
        return self
