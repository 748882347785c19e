"""The Redis sink: an entry of a stream for each record, whole chunks of them in one transaction.

MULTI and EXEC, because Redis then decides about a chunk as one: out of memory, read only, loading, a slot that moved
refuse all of it, so that no record overtakes one that was refused for now. What can still fail alone is a stream whose
key holds another type, which fails every record of that stream. Nothing is sent after a chunk in which something failed
for now.

In a cluster a transaction stays within a slot: order holds within each stream, not between streams.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms, left
from relay.backends.redis.config import LARGEST_TEXT_BYTES, RedisSinkConfig
from relay.backends.redis.entry import add_command, largest_text_bytes
from relay.backends.redis.errors import ERRORS
from relay.backends.sink import Features, Sink
from relay.errors import MissingExtra, NotConnected
from relay.models import Failure, Record

if TYPE_CHECKING:
    from relay.backends.redis.connection import Command, RedisLink

# Redis keeps a transaction in memory until EXEC, and does nothing else while it runs it: some milliseconds.
_CHUNK_BYTES = 4 * 1024 * 1024
_CHUNK_RECORDS = 1000
# Of the time that is left: WAIT must answer well before our own patience ends.
_WAIT_SHARE = 0.5

Chunk = dict[int, tuple[Record, list[str | bytes]]]
"""Records by their index in the batch, each with its command."""


ONE_ORDER = "with exactly_once, Redis takes the ids of a stream in one order"


class RedisSink(Sink[RedisSinkConfig]):
    features: ClassVar[Features] = Features(
        keeps_headers=True,
        keeps_key=True,
        # The server's own limit holds.
        largest_record_bytes=LARGEST_TEXT_BYTES,
        needs_credentials=True,
        subject_key="stream",
        subject_aliases=("redis_stream",),
    )
    config_model = RedisSinkConfig
    needs_operator = ERRORS.needs_operator | {"foreign_stream"}

    @classmethod
    def features_for(cls, config: RedisSinkConfig) -> Features:
        return replace(cls.features, one_lane=ONE_ORDER) if config.exactly_once else cls.features

    def __init__(self, config: RedisSinkConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: Redis"
        self._link: RedisLink | None = None
        self._largest_bytes = LARGEST_TEXT_BYTES

    def open(self) -> None:
        try:
            from relay.backends.redis.connection import RedisLink
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        self.close()
        deadline = in_ms(self._config.timeout_ms)
        link = RedisLink(self._config, self._where, self._pipeline)
        try:
            link.open(deadline)
            self._largest_bytes = link.largest_text_bytes(deadline)
        except BaseException:
            link.close()
            raise
        self._link = link

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        deadline = in_ms(self._config.timeout_ms)
        link = self._link
        if link is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        batch = Batch(len(records))
        begin = 0
        while begin < len(records) and batch.blocked_by is None:
            chunk, begin = self._chunk(records, begin, batch)
            self._publish(link, chunk, batch, deadline)
        batch.hold_back_from(begin)
        return batch.result_unless_stuck(self._where)

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _chunk(self, records: Sequence[Record], begin: int, batch: Batch) -> tuple[Chunk, int]:
        """The next records to send together, and the index after them; those that can never be sent fail in `batch`."""
        chunk: Chunk = {}
        room_bytes = _CHUNK_BYTES
        index = begin
        while index < len(records) and len(chunk) < _CHUNK_RECORDS and room_bytes > 0:
            record = records[index]
            failure = self._unsendable(index, record)
            if failure is None:
                command = add_command(record, self._config)
                chunk[index] = (record, command)
                room_bytes -= sum(map(len, command))
            else:
                batch.add((failure,))
            index += 1
        return chunk, index

    def _unsendable(self, index: int, record: Record) -> Failure | None:
        """Why the record can never be sent, or None. Found here, because the server's answer is to hang up."""
        if not record.subject:
            reason = "the name of the stream is empty: does the template name something that this message lacks?"
            return Failure(index, True, "bad_subject", reason)
        size = largest_text_bytes(record)
        if size > self._largest_bytes:
            reason = f"{size} bytes; the server takes {self._largest_bytes} at most (proto-max-bulk-len)"
            return Failure(index, True, "too_large", reason)
        return None

    def _publish(self, link: "RedisLink", chunk: Chunk, batch: Batch, deadline: float) -> None:
        """One transaction for each slot; after one in which something failed for now, nothing is sent."""
        slots: dict[int, list[int]] = {}
        for index, (record, _) in chunk.items():
            slots.setdefault(link.slot(record.subject), []).append(index)
        for indexes in slots.values():
            if batch.blocked_by is None:
                batch.add(self._transaction(link, {index: chunk[index] for index in indexes}, deadline).values())
            else:
                batch.hold_back(indexes)

    def _transaction(self, link: "RedisLink", chunk: Chunk, deadline: float) -> dict[int, Failure]:
        commands: list[Command] = [("MULTI",), *[command for _, command in chunk.values()], ("EXEC",)]
        replicas = self._config.wait_replicas
        if replicas:
            patience_ms = max(1, int(left(deadline) * 1000 * _WAIT_SHARE))
            commands.append(("WAIT", replicas, patience_ms))
        stream = next(iter(chunk.values()))[0].subject
        answers = link.exchange(stream, commands, deadline)
        failures, refused = _outcome(chunk, answers[1 : len(chunk) + 1], answers[len(chunk) + 1])
        if refused and self._config.exactly_once:
            from relay.backends.redis.exactly_once import judge

            failures.update(judge(link, refused, deadline))
        else:
            for index in refused:
                failures[index] = Failure(index, False, "id_passed", "the stream's last id is at its end")
        if replicas:
            failures = _not_replicated(chunk, answers[-1], replicas) | failures
        return failures


def _outcome(chunk: Chunk, queued: Sequence[Any], executed: Any) -> tuple[dict[int, Failure], dict[int, Record]]:
    """What failed, and what was refused for its id, which may be because it was delivered before."""
    failures: dict[int, Failure] = {}
    refused: dict[int, Record] = {}
    answers = executed
    aborted = isinstance(executed, Exception)
    if aborted:
        # One command that is refused refuses them all; where each was accepted on its own, EXEC says why.
        cause = next((answer for answer in queued if isinstance(answer, Exception)), executed)
        answers = [cause] * len(chunk)
    for (index, (record, _)), answer in zip(chunk.items(), answers, strict=True):
        if isinstance(answer, Exception):
            permanent, code = ERRORS.verdict(answer)
            if code == "id_passed":
                refused[index] = record
            else:
                # Not permanent for all of them: they were not all wrong.
                permanent = permanent and not aborted
                failures[index] = Failure(index, permanent, code, f"stream {record.subject!r}: {answer}")
    return failures, refused


def _not_replicated(chunk: Chunk, reached: Any, wanted: int) -> dict[int, Failure]:
    if isinstance(reached, int) and reached >= wanted:
        return {}
    reason = f"{reached} replicas have it, and wait_replicas asks for {wanted}"
    return {index: Failure(index, False, "not_replicated", reason) for index in chunk}
