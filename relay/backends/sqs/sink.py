"""The SQS sink: requests of ten messages, several on the way at a time, each message answered for.

A standard queue keeps no order, so its requests are sent as they come. In a FIFO queue the order counts within a group:
each group belongs to one lane, the lanes are sent at the same time, and a lane's next request waits for the answer to
the one before. After anything that failed for now, nothing more is sent.

One gap remains in a FIFO queue: SQS answers for each message of a request, and may refuse one for now and take a later
one of the same group. `strict_order` closes it with one message of a group in a request. See docs/backends/sqs.md.
"""

import threading
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import wait
from typing import Any, ClassVar, NamedTuple

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms, left
from relay.backends.common.opening import opened
from relay.backends.sink import Features, Sink
from relay.backends.sqs.config import SqsSinkConfig
from relay.backends.sqs.errors import ERRORS, entry_verdict
from relay.backends.sqs.message import fifo_id, pack, size_bytes
from relay.backends.sqs.queue import PER_REQUEST, Queue
from relay.errors import NotConnected
from relay.masking import mask
from relay.models import Failure, Record
from relay.wire.templates import RecordTemplate

_LARGEST_BYTES = 1024 * 1024
_LARGEST_REQUEST_BYTES = 256 * 1024  # what every server takes; more, where the queue's messages may be larger


class Outgoing(NamedTuple):
    position: int
    """In the batch."""
    entry: dict[str, Any]
    """Of the request; its Id is the position."""
    size: int


class SqsSink(Sink[SqsSinkConfig]):
    features: ClassVar[Features] = Features(
        ordered=False,  # a FIFO queue keeps order within a group
        keeps_headers=True,
        keeps_key=True,
        largest_record_bytes=_LARGEST_BYTES,
        needs_destination=True,
        needs_credentials=True,
        default_subject="",
    )
    config_model = SqsSinkConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: SqsSinkConfig, pipeline: str) -> None:
        self._config = config
        self._where = f"pipeline {pipeline!r}: SQS queue {self._config.queue_name!r}"
        template = self._config.message_group_id
        self._group = RecordTemplate(template, "message_group_id") if template is not None else None
        self._queue: Queue | None = None
        self._largest_bytes = _LARGEST_BYTES

    def open(self) -> None:
        self.close()
        queue = opened(Queue(self._config, self._where, self._config.timeout_ms / 1000))
        self._largest_bytes = int(queue.attributes.get("MaximumMessageSize", _LARGEST_BYTES))
        self._queue = queue

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        deadline = in_ms(self._config.timeout_ms)
        queue = self._queue
        if queue is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        sending = Sending(queue, len(records))
        messages = [self._outgoing(position, record, sending) for position, record in enumerate(records)]
        lanes = self._lanes([message for message in messages if message is not None])
        try:
            running = [queue.submit(sending.run, lane) for lane in lanes]
            done, _ = wait(running, left(deadline))
        finally:
            batch = sending.end(self._config.timeout_ms)
        for future in done:
            if not future.cancelled():
                future.result()  # raises nothing but bugs
        return batch.result_unless_stuck(self._where)

    def close(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.close()

    def _outgoing(self, position: int, record: Record, sending: "Sending") -> Outgoing | None:
        text, attributes = pack(record.body, record.key, record.headers)
        size = size_bytes(text, attributes)
        if size > self._largest_bytes:
            reason = f"{size} bytes with attributes; the queue takes {self._largest_bytes} at most"
            sending.batch.fail(position, True, "too_large", reason)
            return None
        entry: dict[str, Any] = {"Id": str(position), "MessageBody": text}
        if attributes:
            entry["MessageAttributes"] = attributes
        group = self._group.render(record) if self._group is not None else record.key
        if self._config.is_fifo:
            entry["MessageGroupId"] = fifo_id(group or record.dedup_id.rpartition(":")[0] or "-")
            entry["MessageDeduplicationId"] = fifo_id(record.dedup_id)
        elif self._group is not None and group:
            entry["MessageGroupId"] = fifo_id(group)
        sending.waiting.add(position)
        return Outgoing(position, entry, size)

    def _lanes(self, messages: Sequence[Outgoing]) -> list[deque[list[Outgoing]]]:
        """Requests, to be sent one after the other in each lane. A standard queue's lanes are all the same one."""
        width = self._config.max_in_flight
        if not self._config.is_fifo:
            requests = deque(self._requests(messages))
            return [requests] * min(width, len(requests))
        lanes: dict[int, list[Outgoing]] = {}
        for message in messages:
            lanes.setdefault(zlib.crc32(message.entry["MessageGroupId"].encode()) % width, []).append(message)
        return [deque(self._requests(lane)) for lane in lanes.values()]

    def _requests(self, messages: Iterable[Outgoing]) -> Iterable[list[Outgoing]]:
        room_bytes = max(_LARGEST_REQUEST_BYTES, self._largest_bytes)
        request: list[Outgoing] = []
        size = 0
        groups: set[str] = set()
        for message in messages:
            group = message.entry.get("MessageGroupId", "")
            again = self._config.strict_order and self._config.is_fifo and group in groups
            if request and (len(request) == PER_REQUEST or size + message.size > room_bytes or again):
                yield request
                request, size, groups = [], 0, set()
            request.append(message)
            size += message.size
            groups.add(group)
        if request:
            yield request


class Sending:
    """One batch on its way. Lanes run in threads; a position leaves `waiting` once, when its answer is there."""

    def __init__(self, queue: Queue, size: int) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self.batch = Batch(size)
        self.waiting: set[int] = set()
        self._sent: set[int] = set()
        self._halted = False

    def run(self, lane: deque[list[Outgoing]]) -> None:
        while not self._halted:
            try:
                request = lane.popleft()
            except IndexError:
                return
            self._send(request)

    def end(self, timeout_ms: int) -> Batch:
        """As far as the answers tell by now; what comes later changes nothing."""
        self._halted = True
        with self._lock:
            batch, self.batch = self.batch, Batch(0)
            late = self.waiting & self._sent
            for position in sorted(late):
                batch.fail(position, False, "timeout", f"no answer within {timeout_ms} ms")
            batch.hold_back(self.waiting - late)
        return batch

    def _send(self, request: list[Outgoing]) -> None:
        with self._lock:
            self._sent.update(message.position for message in request)
        try:
            answer = self._queue.call("send_message_batch", Entries=[message.entry for message in request])
        except self._queue.errors() as error:
            permanent, code = ERRORS.verdict(error)
            if permanent and len(request) > 1:
                # One of them is at fault, and this does not tell which.
                for message in request:
                    if not self._halted:
                        self._send([message])
                return
            for message in request:
                self._fail(message.position, permanent, code, self._queue.described(error))
            return
        for refused in answer.get("Failed", []):
            code_of_sqs, text = str(refused.get("Code")), str(refused.get("Message") or "refused")
            permanent, code = entry_verdict(code_of_sqs, text)
            self._fail(int(refused["Id"]), permanent, code, mask(f"{text} ({code_of_sqs})"))
        with self._lock:
            self.waiting.difference_update(int(taken["Id"]) for taken in answer.get("Successful", []))

    def _fail(self, position: int, permanent: bool, code: str, reason: str) -> None:
        with self._lock:
            self.batch.fail(position, permanent, code, reason)
            self.waiting.discard(position)
        if not permanent:
            self._halted = True
