"""The NATS sink: a JetStream stream, to which a batch is published at once and every acknowledgement awaited.

nats-py is asyncio. Its loop runs in one private thread for each open sink (`loop.py`), so that pings are
answered between batches. The client never reconnects on its own: a lost connection is NotConnected, and the caller
decides when to open again.

Order: records leave in order over one connection, in chunks of `max_in_flight`, and nothing is sent after a chunk in
which something failed for now. Inside a chunk the server may still refuse one record and take the next (a full stream,
a change of leader), and the refused one then follows it. `strict_order` closes that gap with
`Nats-Expected-Last-Msg-Id`, which only a stream without other publishers can bear. docs/backends/nats.md says more.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms
from relay.backends.common.opening import opened
from relay.backends.common.short_cache import cached_if_short
from relay.backends.nats.config import NatsSinkConfig
from relay.backends.nats.errors import ERRORS
from relay.backends.sink import Features, Sink
from relay.errors import MissingExtra, NotConnected
from relay.models import Failure, Record

if TYPE_CHECKING:
    from relay.backends.nats.publisher import NatsPublisher, Outgoing

_WHITE_SPACE = re.compile(r"[\x00-\x20\x7f]")
_LONGEST_SUBJECT_BYTES = 2048  # the server takes 4096 for the whole control line
_HEADER_FRAME_BYTES = len("NATS/1.0\r\n\r\n")
_HEADER_LINE_BYTES = len(": \r\n")


# Less than the connection's outgoing buffer, so that handing a record to the client never waits.
_CHUNK_BYTES = 4 * 1024 * 1024


class NatsSink(Sink[NatsSinkConfig]):
    features: ClassVar[Features] = Features(
        deduplicates=True,
        keeps_headers=True,
        cloudevents_binding="nats",
        # A server's default `max_payload`; the server's and the stream's own limits hold.
        largest_record_bytes=1024 * 1024,
        needs_destination=True,
        needs_credentials=True,
    )
    config_model = NatsSinkConfig
    needs_operator = ERRORS.needs_operator | {"wrong_stream"}

    def __init__(self, config: NatsSinkConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: NATS stream {self._config.stream!r}"
        self._connection: NatsPublisher | None = None

    def open(self) -> None:
        try:
            from relay.backends.nats.publisher import NatsPublisher
        except ImportError as error:
            raise MissingExtra("nats", "nats") from error
        self.close()
        self._connection = opened(NatsPublisher(self._config, self._pipeline, self._where))

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        deadline = in_ms(self._config.timeout_ms)
        connection = self._connection
        if connection is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        batch = Batch(len(records))
        begin = 0
        while begin < len(records) and batch.blocked_by is None:
            chunk, begin = self._chunk(records, begin, connection.largest_bytes, batch)
            batch.add(connection.publish(chunk, deadline).values())
        batch.hold_back_from(begin)
        return batch.result_unless_stuck(self._where)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _chunk(
        self, records: Sequence[Record], begin: int, largest_bytes: int, batch: Batch
    ) -> "tuple[list[Outgoing], int]":
        """The next records to send together, and the index after them; those that can never be sent fail in `batch`."""
        from relay.backends.nats.publisher import Outgoing

        chunk: list[Outgoing] = []
        room_bytes = _CHUNK_BYTES
        index = begin
        while index < len(records) and len(chunk) < self._config.max_in_flight and room_bytes > 0:
            record = records[index]
            headers = self._headers(record)
            if self._config.strict_order and chunk:
                headers["Nats-Expected-Last-Msg-Id"] = chunk[-1].headers["Nats-Msg-Id"]
            failure = _unsendable(index, record, headers, largest_bytes)
            if failure is None:
                chunk.append(Outgoing(index, record.subject, record.body, headers))
                room_bytes -= len(record.body)
            else:
                batch.add((failure,))
            index += 1
        return chunk, index

    def _headers(self, record: Record) -> dict[str, str]:
        # `Nats-` headers are commands to the server (purge the subject, expect a sequence): not for messages to give.
        headers = {name: value for name, value in record.headers.items() if not name.startswith("Nats-")}
        headers["Nats-Msg-Id"] = record.dedup_id
        headers["Nats-Expected-Stream"] = self._config.stream
        return headers


def _unsendable(index: int, record: Record, headers: dict[str, str], largest_bytes: int) -> Failure | None:
    """Why the record can never be sent, or None. Found here, because the server's answer is to hang up."""
    problem = _subject_problem(record.subject)
    if problem is not None:
        return Failure(index, True, "bad_subject", problem)
    size = len(record.body) + _HEADER_FRAME_BYTES + _HEADER_LINE_BYTES * len(headers)
    texts = [*headers, *headers.values()]
    # UTF-8 takes at most four bytes a character; count them only when it could matter.
    if size + 4 * sum(map(len, texts)) > largest_bytes:
        size += sum(len(text.encode()) for text in texts)
        if size > largest_bytes:
            reason = f"{size} bytes with headers; the server or the stream takes {largest_bytes} at most"
            return Failure(index, True, "too_large", reason)
    return None


@cached_if_short
def _subject_problem(subject: str) -> str | None:
    # First, so that no other reason repeats a subject without end.
    if len(subject) > _LONGEST_SUBJECT_BYTES or len(subject.encode(errors="replace")) > _LONGEST_SUBJECT_BYTES:
        return f"subject of {len(subject)} characters; at most {_LONGEST_SUBJECT_BYTES} bytes"
    tokens = subject.split(".")
    if "" in tokens:
        return f"subject {subject!r} has an empty part: does the template name something that this message lacks?"
    if "*" in tokens or ">" in tokens or _WHITE_SPACE.search(subject):
        return f"subject {subject!r} has a wildcard or white space"
    if subject.startswith("$"):
        return f"subject {subject!r} begins with '$', which is the server's own"
    return None
