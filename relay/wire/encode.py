"""Message -> Record: the subject template, the wire format and the headers, decided once for all sinks.

A `Wire` is built once per drain and holds everything that does not depend on the message, because this is the
hot path: a constant subject costs nothing per message, headers are parsed only if something reads them,
payloads are never parsed, and times are the text that PostgreSQL made of them. Raw with headers of our own takes below
a microsecond per message.

docs/reference/wire-formats.md describes the formats for users. To add one, write a module in `relay/wire/formats` and
name its two functions in `FORMATS`, here and in `relay/wire/decode.py`, which is the other direction.
"""

from collections.abc import Callable, Iterable
from typing import Any

from relay.errors import ConfigError
from relay.models import Message, Record
from relay.wire.formats import cloudevents, debezium, envelope, raw
from relay.wire.formats.base import DEFAULT_SOURCE, DEFAULT_TYPE, EMPTY_HEADERS, Binding, Encoder, Origin
from relay.wire.json_text import values
from relay.wire.templates import Headers, compile_template

_NO_HEADERS: dict[str, str] = {}

FORMATS: dict[str, Callable[[Origin], Encoder]] = {
    "raw": raw.encoder,
    "envelope": envelope.encoder,
    "cloudevents": cloudevents.encoder,
    "cloudevents_structured": cloudevents.structured_encoder,
    "debezium": debezium.encoder,
}
"""The values of a forward pipeline's `wire_format`."""


class Wire:
    """Makes the records of one drain.

    `keeps_headers` and `binding` are the sink's features: headers are not built for a sink that drops them.
    Raises ConfigError for an unknown wire format or an invalid template.
    """

    def __init__(
        self,
        *,
        outbox: str,
        pipeline: str,
        subject_template: str,
        wire_format: str,
        keeps_headers: bool,
        binding: Binding | None = None,
        cloudevents_source: str | None = None,
        cloudevents_type: str | None = None,
    ) -> None:
        if wire_format not in FORMATS:
            raise ConfigError(f"unknown wire_format {wire_format!r}; known: {', '.join(FORMATS)}")
        template = compile_template(subject_template)
        parts = template.bind(outbox, pipeline)
        self._subject_parts = parts
        origin = Origin(
            outbox,
            pipeline,
            keeps_headers,
            binding,
            DEFAULT_SOURCE if cloudevents_source is None else cloudevents_source,
            DEFAULT_TYPE if cloudevents_type is None else cloudevents_type,
        )
        encoder = FORMATS[wire_format](origin)
        self._body, self._headers = encoder.body, encoder.headers
        constant = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else None
        self._constant_subject = constant
        self._batch = encoder.batch(constant) if encoder.batch and constant is not None else self._one_by_one
        self._outbox = outbox
        self._keeps_headers = keeps_headers
        self._reads_headers = keeps_headers or template.reads_headers or encoder.reads_headers

    def records(self, messages: Iterable[Message]) -> list[Record]:
        """One record for each message, in their order."""
        return self._batch(messages)

    def _one_by_one(self, messages: Iterable[Message]) -> list[Record]:
        return [self._record(message) for message in messages]

    def _record(self, message: Message) -> Record:
        own: dict[str, Any] = _NO_HEADERS
        if self._reads_headers and message.headers != EMPTY_HEADERS:
            own = values(message.headers)
        dedup_id = f"{self._outbox}:{message.id}"
        subject = self._constant_subject
        if subject is None:
            subject = self._subject(message, own)
        headers = self._headers(dedup_id, message, own) if self._keeps_headers else _NO_HEADERS
        return Record(message.id, dedup_id, subject, message.key, self._body(message, own), headers, message.created_at)

    def _subject(self, message: Message, own: Headers) -> str:
        return "".join([part if isinstance(part, str) else part(message, own) for part in self._subject_parts])
