"""The Kafka source: all partitions of its topics, or those of its lane, each from the position that PostgreSQL holds.

The pipeline has one owner at a time, so partitions are assigned by us and the consumer group never rebalances. What was
acknowledged is committed to the group too, for those who watch its lag; nothing depends on it, but for a partition
without a position (`KafkaReader`). A position is the offset of the last message whose row is committed.
"""

import base64
import threading
import time
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any, ClassVar

from relay.backends.kafka.config import KafkaSourceConfig
from relay.backends.kafka.errors import ERRORS
from relay.backends.kafka.positions import Position, Suffixes
from relay.backends.source import Source, SourceFeatures
from relay.errors import MissingExtra, NotConnected
from relay.models import Failure, Received
from relay.wire.storable import storable_text

if TYPE_CHECKING:
    from confluent_kafka import Message

    from relay.backends.kafka.reader import KafkaReader

# How long one wait inside the client may be: so long may `close` have to wait for it.
_SLICE_SECONDS = 0.25

# Of a header whose name is not UTF-8 the client makes a tuple without a name, and returns the list with an exception
# pending: reading that tuple ends the process. Called like this, CPython checks for the exception and raises
# SystemError; a plain `message.headers()`, once its bytecode is specialized, does not check.
_headers = methodcaller("headers")
_SHOWN_BYTES = 80
_NONE = Suffixes()


class KafkaSource(Source[KafkaSourceConfig, "Message"]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        has_positions=True,
        redelivers=False,
        keeps_headers=True,
        keeps_key=True,
        needs_source=True,
        needs_credentials=True,
    )
    config_model = KafkaSourceConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: KafkaSourceConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: Kafka at {self._config.brokers}"
        self._reader: KafkaReader | None = None
        self._suffixes: Mapping[str, Suffixes] = {}
        # The client must not be closed while another thread is inside it.
        self._using = threading.Lock()

    def open(self, positions: Mapping[str, str]) -> None:
        try:
            from relay.backends.kafka.reader import KafkaReader
        except ImportError as error:
            raise MissingExtra("kafka", "kafka") from error
        self.close()
        reader = KafkaReader(self._config, self._pipeline, self._where, self.lane)
        try:
            reader.begin(positions)
        except BaseException:
            reader.close()
            raise
        self._reader = reader
        self.begun = reader.begun
        self._suffixes = reader.suffixes

    def fetch(self, max_messages: int, wait_seconds: float) -> "list[Message]":
        deadline = time.monotonic() + wait_seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            with self._using:
                messages = self._opened().read(max_messages, min(left, _SLICE_SECONDS))
            if messages or left <= _SLICE_SECONDS:
                return messages

    def convert(self, message: "Message") -> Received:
        try:
            return received(message, self._suffixes)
        except BadHeaders as error:
            key: Any = message.key()
            failure = Failure(0, True, "bad_header", str(error))
            return self.bare(message)._replace(key=None if key is None else text_of(key), failure=failure)

    def bare(self, message: "Message") -> Received:
        return bare(message, self._suffixes)

    def ack(self, received: Sequence[Received]) -> None:
        with self._using:
            reader = self._opened()
            # In order, so the last of each partition stays.
            last = {message.partition: message.position for message in received}
            reader.done({partition: Position.parse(position).offset for partition, position in last.items()})

    def passed(self) -> Mapping[str, str]:
        with self._using:
            return self._opened().passed()

    def release(self) -> None:
        with self._using:
            if self._reader is not None:
                self._reader.release()

    def close(self) -> None:
        reader, self._reader = self._reader, None
        with self._using:
            if reader is not None:
                reader.close()

    def _opened(self) -> "KafkaReader":
        if self._reader is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        return self._reader


def received(message: "Message", suffixes: Mapping[str, Suffixes]) -> Received:
    """`suffixes`: by the name of a partition; it needs none otherwise."""
    value: Any = message.value()
    key: Any = message.key()
    try:
        headers: Any = _headers(message)
    except (SystemError, UnicodeDecodeError) as error:
        raise _unreadable(message, error) from None
    topic, offset = message.topic(), str(message.offset())
    partition = f"{topic}/{message.partition()}"
    id_suffix, position_suffix = suffixes.get(partition, _NONE)
    of_message = headers_of(headers) if headers else {}
    if value is None:
        # Nothing has no type: with one that is not JSON, a CloudEvent would be the text "null".
        of_message = {name: text for name, text in of_message.items() if name.lower() != "content-type"}
    # Every message passes here; `_make` takes a quarter of the time that the constructor takes.
    return Received._make((
        f"{partition}/{offset}{id_suffix}",
        b"null" if value is None else value,  # a tombstone
        of_message,
        None if key is None else text_of(key),
        topic,
        partition,
        offset + position_suffix,
        None,
        None,
    ))  # fmt: skip


def bare(message: "Message", suffixes: Mapping[str, Suffixes]) -> Received:
    topic, offset, value = str(message.topic()), str(message.offset()), message.value()
    partition = f"{topic}/{message.partition()}"
    suffix = suffixes.get(partition, _NONE)
    body = b"null" if value is None else value
    position = offset + suffix.position
    return Received(f"{partition}/{offset}{suffix.id}", body, {}, None, topic, partition, position)


class BadHeaders(Exception):
    """The client cannot read the headers of this message."""


def _unreadable(message: "Message", error: BaseException) -> BadHeaders:
    # The message keeps the broken list, and would give it out without an exception.
    message.set_headers([])
    return BadHeaders(_said(error))


def _said(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UnicodeDecodeError):
        cause = cause.__cause__ or cause.__context__
    name = repr(cause.object[:_SHOWN_BYTES]) if isinstance(cause, UnicodeDecodeError) else ""
    return f"the name {name} of a header is not UTF-8, and the client can read no header of this record then"


def headers_of(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """The last one of a name counts."""
    try:
        texts = {name: content.decode() for name, content in headers}  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        return {name: text_of(content) for name, content in headers}
    return {name: text_of(content) for name, content in headers} if "\0" in "".join(texts.values()) else texts


def text_of(data: bytes | None) -> str:
    """UTF-8; base64 where it is not, or where PostgreSQL could not store it."""
    try:
        return storable_text((data or b"").decode())
    except UnicodeDecodeError:
        return base64.b64encode(data or b"").decode()
