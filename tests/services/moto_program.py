"""moto's server, with queues that several clients can use at a time.

As they are, they count all messages of the queue several times for each that is sent or received, with a slow way of
reading the time; and two requests at a time hand out a message twice, or fail. SQS does neither, so here nothing is
counted that no one asked for, and queues are asked one after the other.

To be run with `python -P`: a file of this folder has moto's name.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import moto.sqs.models
from moto.server import main

models: Any = moto.sqs.models
backend: Any = models.SQSBackend
one_at_a_time = threading.RLock()
receive_message = backend.receive_message
get_queue_attributes = backend.get_queue_attributes
all_attributes = models.Queue.attributes.fget


class Attributes(Mapping[str, Any]):
    """Of a queue; counted only for who asks for more than this one."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def get(self, name: str, default: Any = None) -> Any:
        if name == "ContentBasedDeduplication":
            return str(self._queue.content_based_deduplication).lower() if self._queue.fifo_queue else default
        return all_attributes(self._queue).get(name, default)

    def __getitem__(self, name: str) -> Any:
        return all_attributes(self._queue)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(all_attributes(self._queue))

    def __len__(self) -> int:
        return len(all_attributes(self._queue))


def attributes_asked_for(self: Any, name: str, asked: list[str]) -> Any:
    if asked == ["MessageRetentionPeriod"]:  # as it asks itself, for each message that is received
        return {"MessageRetentionPeriod": self.get_queue(name).message_retention_period}
    return get_queue_attributes(self, name, asked)


def receive(self: Any, name: str, count: int, wait_seconds: int, visibility: int, attributes: Any = None) -> Any:
    end = time.monotonic() + wait_seconds
    while True:
        with one_at_a_time:
            found = receive_message(self, name, count, 0, visibility, attributes)
        if found or time.monotonic() >= end:
            return found
        time.sleep(0.01)


def locked(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def locking(*arguments: Any, **options: Any) -> Any:
        with one_at_a_time:
            return call(*arguments, **options)

    return locking


models.unix_time_millis = lambda: time.time() * 1000
models.Queue.attributes = property(Attributes)
backend.get_queue_attributes = attributes_asked_for
backend.receive_message = receive
for verb in ("send_message_batch", "delete_message_batch", "change_message_visibility_batch"):
    setattr(backend, verb, locked(getattr(backend, verb)))

if __name__ == "__main__":
    main()
