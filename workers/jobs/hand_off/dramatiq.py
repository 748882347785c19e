"""A job as a message of Dramatiq, in the encoding of its JSONEncoder, and as the keys of its RedisBroker.

    $namespace:$queue        a list of the ids of waiting messages
    $namespace:$queue.msgs   a hash: their id -> the message

Workers pop ids from the list, and remove a message from the hash when it is acknowledged. So a message that waits or
runs is in the hash, and handing it off again does nothing.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from relay.pipelines.jobs import JobsPipeline
from workers.jobs.hand_off.task import Content, Task

# KEYS: the list, the hash. ARGV: id, message, id, message ... What is not a hash is found before anything is written.
_ENQUEUE = """
for i = 1, #ARGV, 2 do
    if redis.call('hexists', KEYS[2], ARGV[i]) == 0 then
        redis.call('rpush', KEYS[1], ARGV[i])
        redis.call('hset', KEYS[2], ARGV[i], ARGV[i + 1])
    end
end
"""


class Dramatiq:
    """The messages of one application."""

    name = "Dramatiq"

    def __init__(self, config: JobsPipeline) -> None:
        self.default_queue = config.dramatiq_queue
        self._namespace = config.dramatiq_namespace

    def check(self, task: Task) -> None:
        """Its options are those of the application's middleware, of which nothing is known here."""

    def redis_key(self, task: Task) -> str:
        return f"{self._namespace}:{task.queue}"

    def redis_message(self, task: Task) -> bytes:
        return _encoded(task, {"redis_message_id": task.dedup_id})

    def redis_command(self, key: str, messages: Mapping[str, bytes]) -> list[str | bytes | int]:
        pairs: Iterator[str | bytes] = chain.from_iterable(messages.items())
        return ["EVAL", _ENQUEUE, 2, key, f"{key}.msgs", *pairs]

    def content(self, task: Task) -> Content:
        return Content(_encoded(task, {}), {"priority": task.priority})


def _encoded(task: Task, broker_options: dict[str, Any]) -> bytes:
    options = dict(task.options)
    if task.priority is not None:
        options["broker_priority"] = task.priority
    if task.trace_id is not None:
        options["trace_id"] = task.trace_id
    return msgspec.json.encode(
        {
            "queue_name": task.queue,
            "actor_name": task.name,
            "args": msgspec.Raw(task.args),
            "kwargs": msgspec.Raw(task.kwargs),
            "options": options | broker_options,
            "message_id": task.dedup_id,
            # Of the hand-off, not of the job: Dramatiq's AgeLimit means the time in its own queue.
            "message_timestamp": int(time.time() * 1000),
        }
    )
