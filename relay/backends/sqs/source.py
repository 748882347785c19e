"""The SQS source: ten messages in a request, several requests at a time, deleted after the commit.

The wait for the first message is one long poll. When it brings as many as it may, the rest of the batch is fetched by
several requests that do not wait. A request that comes back too late, after `close` or the time limit, gives back what
it brought, so that no worker has to wait for its visibility timeout.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from relay.backends.common.opening import opened
from relay.backends.source import MAX_HELD_BYTES, Source, SourceFeatures
from relay.backends.sqs.config import LONGEST_POLL_SECONDS, SqsSourceConfig
from relay.backends.sqs.errors import ERRORS, entry_verdict
from relay.backends.sqs.held import Holding
from relay.backends.sqs.message import unpack
from relay.backends.sqs.queue import PER_REQUEST, Queue
from relay.errors import NotConnected
from relay.masking import mask
from relay.models import Received
from relay.wire.storable import storable_text

_SHORTEST_POLL_SECONDS = 0.5  # SQS counts in seconds; for less one question is asked, and the time waited out
# Of bodies, in requests under way together: parsing an answer takes four times as much for a moment.
_REQUESTED_BYTES = 3 * 1024 * 1024
_SYSTEM = ["MessageGroupId", "SequenceNumber"]

Message = dict[str, Any]
"""As SQS describes it."""


class SqsSource(Source[SqsSourceConfig, Message]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        ordered=False,  # a FIFO queue keeps order within a group
        keeps_headers=True,
        keeps_key=True,
        needs_source=True,
        needs_credentials=True,
        longest_wait_seconds=float(LONGEST_POLL_SECONDS),
    )
    config_model = SqsSourceConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: SqsSourceConfig, pipeline: str) -> None:
        self._config = config
        self._where = f"pipeline {pipeline!r}: SQS queue {self._config.queue_name!r}"
        self._seconds = self._config.timeout_ms / 1000
        self._queue: Queue | None = None
        self._holding = Holding(self._config.visibility_timeout, lambda _: [])
        self._largest_bytes = 1
        self._backlog = False

    def open(self, positions: Mapping[str, str]) -> None:  # noqa: ARG002 (SQS has none)
        self.close()
        queue = opened(Queue(self._config, self._where, self._seconds, self._config.wait_time_seconds))
        self._backlog = False
        self._largest_bytes = int(queue.attributes.get("MaximumMessageSize", 1024 * 1024))
        self._holding = Holding(
            self._config.visibility_timeout,
            lambda handles: _change_visibility(queue, handles, self._config.visibility_timeout),
        )
        self._queue = queue

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Message]:
        queue = self._opened()
        end = time.monotonic() + wait_seconds
        received = self._fetch_more(queue, [], max_messages) if self._backlog else []
        while not received:
            received = self._poll(queue, max_messages, end)
            if time.monotonic() >= end:
                break
        if self._backlog and received:
            received = self._fetch_more(queue, received, max_messages)
        return received

    def convert(self, message: Message) -> Received:
        body, key, headers = unpack(message["Body"], message.get("MessageAttributes", {}))
        system = message.get("Attributes", {})
        if "SequenceNumber" in system:
            headers["sqs-sequence-number"] = system["SequenceNumber"]
        if key is None:
            key = system.get("MessageGroupId")
        key = None if key is None else storable_text(key)
        headers = {name: storable_text(value) for name, value in headers.items()}
        queue_name = self._config.queue_name
        return Received(message["MessageId"], body, headers, key, queue_name, token=message["ReceiptHandle"])

    def bare(self, message: Message) -> Received:
        body, queue_name = message["Body"].encode(errors="replace"), self._config.queue_name
        return Received(message["MessageId"], body, {}, None, queue_name, token=message["ReceiptHandle"])

    def ack(self, received: Sequence[Received]) -> None:
        queue = self._opened()
        deadline = time.monotonic() + self._seconds
        handles = list(dict.fromkeys(message.token for message in received))
        calls = [queue.submit(_delete, queue, self._where, chunk) for chunk in _tens(handles)]
        for call in calls:
            self._result(queue, call, deadline)
        self._holding.remove(handles)

    def release(self) -> None:
        if self._queue is not None:
            self._give_back(self._queue, self._seconds)

    def close(self) -> None:
        queue, self._queue = self._queue, None
        self._holding.close()
        if queue is not None:
            self._give_back(queue, min(self._seconds, 2.0))
            queue.close()

    # Receiving ------------------------------------------------------------------------------------------------------

    def _poll(self, queue: Queue, max_messages: int, end: float) -> list[Message]:
        """One request, which waits for the first message until about `end`."""
        left = max(0.0, end - time.monotonic())
        wait_seconds = min(self._config.wait_time_seconds, max(1, int(left))) if left >= _SHORTEST_POLL_SECONDS else 0
        count = min(max_messages, PER_REQUEST, max(1, _REQUESTED_BYTES // self._largest_bytes))
        received = self._results(queue, [Fetch(queue, self._config, self._holding, count, wait_seconds)])
        self._backlog = len(received) == count
        if not received and wait_seconds == 0:
            queue.pause(left)
        return received

    def _fetch_more(self, queue: Queue, received: list[Message], max_messages: int) -> list[Message]:
        """With what several requests at a time find at once, while they find any and memory allows."""
        room_bytes = MAX_HELD_BYTES // 2 - sum(_size(message) for message in received)
        while room_bytes > 0 and self._backlog:
            count = min(PER_REQUEST, max(1, _REQUESTED_BYTES // self._largest_bytes))
            wanted = min(max_messages - len(received), self._config.max_in_flight * count)
            wanted = min(wanted, min(room_bytes, _REQUESTED_BYTES) // self._largest_bytes)
            if wanted <= 0:
                break
            counts = [min(count, wanted - begin) for begin in range(0, wanted, count)]
            try:
                found = self._results(queue, [Fetch(queue, self._config, self._holding, each) for each in counts])
            except NotConnected:
                if not received or self._queue is None:
                    raise
                found = []  # what came before is good; the next `receive` meets the trouble, if it lasts
            self._backlog = bool(found)
            room_bytes -= sum(_size(message) for message in found)
            received = list({message["MessageId"]: message for message in received + found}.values())
        return received

    def _results(self, queue: Queue, fetches: "list[Fetch]") -> list[Message]:
        deadline = time.monotonic() + max(fetch.wait_seconds for fetch in fetches) + self._seconds
        # By id: a standard queue may hand out a message twice. The later handle is the one that counts.
        by_id: dict[str, Message] = {}
        lost: NotConnected | None = None
        try:
            for call in [queue.submit(fetch.run) for fetch in fetches]:
                try:
                    by_id.update((message["MessageId"], message) for message in self._result(queue, call, deadline))
                except NotConnected as error:
                    lost = error
        finally:
            for fetch in fetches:
                fetch.abandon_unless_done()
        if lost is not None and not by_id:
            raise lost
        found = list(by_id.values())
        # As the largest of the last answers: one large message makes the next requests smaller, small ones larger.
        largest = max((_size(message) for message in found), default=0)
        self._largest_bytes = max(1, largest, self._largest_bytes // 4 if found else self._largest_bytes)
        return found

    def _result(self, queue: Queue, call: Any, deadline: float) -> Any:
        try:
            return queue.result(call, deadline)
        except queue.errors() as error:
            raise queue.translated(error) from error

    def _give_back(self, queue: Queue, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._backlog = False
        try:
            calls = [queue.submit(_change_visibility, queue, chunk, 0) for chunk in _tens(self._holding.take_all())]
            for call in calls:
                queue.result(call, deadline)
        except NotConnected:
            pass  # they come again by themselves, when their visibility timeout is over

    def _opened(self) -> Queue:
        if self._queue is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        return self._queue


class Fetch:
    """One request for messages. Either its caller gets them, or they are given back."""

    def __init__(
        self, queue: Queue, config: SqsSourceConfig, holding: Holding, count: int, wait_seconds: int = 0
    ) -> None:
        self._queue = queue
        self._config = config
        self._holding = holding
        self._count = count
        self.wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._done = False
        self._abandoned = False

    def run(self) -> list[Message]:
        answer = self._queue.call(
            "receive_message",
            MaxNumberOfMessages=self._count,
            WaitTimeSeconds=self.wait_seconds,
            VisibilityTimeout=self._config.visibility_timeout,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=_SYSTEM,
        )
        messages: list[Message] = answer.get("Messages", [])
        handles = [message["ReceiptHandle"] for message in messages]
        with self._lock:
            if not self._abandoned:
                self._done = True
                self._holding.add(handles)
                return messages
        if handles:
            _change_visibility(self._queue, handles, 0)
        return []

    def abandon_unless_done(self) -> None:
        with self._lock:
            self._abandoned = not self._done


def _size(message: Message) -> int:
    """Of the body, in bytes."""
    text: str = message["Body"]
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _change_visibility(queue: Queue, handles: Sequence[str], seconds: int) -> list[str]:
    """Those that are now hidden for so long. The others come again: at worst too early, and the inbox knows them."""
    entries = [
        {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
        for number, handle in enumerate(handles)
    ]
    try:
        answer = queue.call("change_message_visibility_batch", Entries=entries)
    except queue.errors():
        return []
    return [handles[int(changed["Id"])] for changed in answer.get("Successful", [])]


def _delete(queue: Queue, where: str, handles: Sequence[str]) -> None:
    """A handle that SQS no longer knows is not a failure: deleted already, or it comes again and the inbox knows it."""
    entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)]
    for refused in queue.call("delete_message_batch", Entries=entries).get("Failed", []):
        code_of_sqs, text = str(refused.get("Code")), str(refused.get("Message"))
        permanent, code = entry_verdict(code_of_sqs, text)
        if not permanent and code != "receipt":
            raise NotConnected(f"{where}: not deleted: {mask(text)} ({code_of_sqs})", code=code)


def _tens(handles: Sequence[str]) -> list[Sequence[str]]:
    return [handles[begin : begin + PER_REQUEST] for begin in range(0, len(handles), PER_REQUEST)]
