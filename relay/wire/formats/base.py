"""What the wire formats share. Each format is one module beside this one, with both directions:

- `encoder(origin) -> Encoder`, called once for each drain: what makes the body and the headers of a record.
- `decode(received, text) -> Parts`: what a received message consists of. `text` is its body. Raises `Invalid`.

Nothing is parsed and written again: bodies are joined from bytes, because payload and headers of a message are JSON
already, and what a body contains is taken out as a slice of its text. So every number keeps its digits.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from relay.models import Message, Record
from relay.wire.json_text import texts, values
from relay.wire.templates import Headers, compile_template, header_text

Binding = Literal["kafka", "http", "nats", "amqp"]

EMPTY_HEADERS = b"{}"

MakeRecords = Callable[[Iterable[Message]], list[Record]]

DEFAULT_SOURCE = "/tide-relay/{outbox}"
DEFAULT_TYPE = "{type}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same for every message of a drain."""

    outbox: str
    pipeline: str
    keeps_headers: bool
    """Whether the sink sends headers beside the body."""
    binding: Binding | None = None
    """How the sink's headers carry CloudEvents attributes; None: not at all."""
    cloudevents_source: str = DEFAULT_SOURCE
    """A template."""
    cloudevents_type: str = DEFAULT_TYPE
    """A template; where it is empty, the type is the outbox's name."""


class Encoder(NamedTuple):
    """What a format makes of a message."""

    body: Callable[[Message, Headers], bytes]
    """The second argument is empty unless `reads_headers`."""
    headers: Callable[[str, Message, Headers], dict[str, str]]
    """From the dedup id. Called only for a sink that keeps headers."""
    reads_headers: bool = False
    """The body needs the message's headers parsed."""
    batch: Callable[[str], MakeRecords] | None = None
    """From a subject: what makes the records of a whole batch that all have it, faster than the two above would."""


class Parts(NamedTuple):
    """What a received message consists of."""

    id: str
    """The default event id."""
    type: str | None
    source: str | None
    key: str | None
    sequence: int | None
    payload: str
    """JSON text."""
    headers: Mapping[str, Any]
    headers_text: str | None = None
    """The headers as JSON, if they came as JSON."""


class Invalid(Exception):
    """The message cannot become a row, now or later. `code` is a short stable word."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def payload_as_body(message: Message, _own: Headers) -> bytes:
    """The payload as it was published."""
    return message.payload


def relay_headers(origin: Origin) -> Callable[[str, Message, Headers], dict[str, str]]:
    """The message's own headers, and ours, which win."""
    outbox = origin.outbox

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        ours = {"relay-id": dedup_id, "relay-outbox": outbox, "relay-created-at": message.created_at}
        return own_headers(own) | ours if own else ours

    return headers


def own_texts(headers: bytes) -> dict[str, str]:
    """`own_headers` of headers that are not parsed yet."""
    found = texts(headers)
    return own_headers(values(headers)) if found is None else found


def own_headers(own: Headers) -> dict[str, str]:
    """The message's own headers as text."""
    return {name: header_text(value) for name, value in own.items()}


def filled(template: str, origin: Origin) -> Callable[[Message, Headers], str]:
    """What renders a template for the messages of an origin. Raises ConfigError for an invalid template."""
    parts = compile_template(template).bind(origin.outbox, origin.pipeline)
    if len(parts) == 1 and isinstance(constant := parts[0], str):
        return lambda _message, _own: constant
    return lambda message, own: "".join([part if isinstance(part, str) else part(message, own) for part in parts])
