"""moto's server, with queues that several clients can use at a time.

As they are, they ask every message whether it is visible for each that is sent, with a slow way of reading the time;
and two requests at a time hand out a message twice, or fail. SQS does neither, so here the clock is a fast one, and
queues are asked one after the other.

To be run with `python -P`: a file of this folder has moto's name.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import moto.sqs.models
from moto.server import main

models: Any = moto.sqs.models
backend: Any = models.SQSBackend
one_at_a_time = threading.RLock()
receive_message = backend.receive_message


def locked(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def locking(*arguments: Any, **options: Any) -> Any:
        with one_at_a_time:
            return call(*arguments, **options)

    return locking


def receive(self: Any, name: str, count: int, wait_seconds: int, visibility: int, attributes: Any = None) -> Any:
    end = time.monotonic() + wait_seconds
    while True:
        with one_at_a_time:
            found = receive_message(self, name, count, 0, visibility, attributes)
        if found or time.monotonic() >= end:
            return found
        time.sleep(0.01)


models.unix_time_millis = lambda: time.time() * 1000
backend.receive_message = receive
for verb in ("send_message_batch", "delete_message_batch", "change_message_visibility_batch"):
    setattr(backend, verb, locked(getattr(backend, verb)))

if __name__ == "__main__":
    main()
