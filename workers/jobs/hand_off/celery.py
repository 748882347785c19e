"""A job as a task message of Celery, protocol 2, and as kombu puts it into Redis.

Protocol 2: what describes the task is in the message's headers; the body is `[args, kwargs, embed]`. Over AMQP these
are AMQP's headers and body. In Redis the message is one JSON object with the body in base64, in the list of the queue's
name, or, for a priority above the first step, in that of `<queue>\\x06\\x16<step>`. Workers take from its other end.
They keep what they have not acknowledged in the keys `unacked` and `unacked_index`, by the delivery tag: so that is a
new one each time, while the id of the task stays the same.
"""

import base64
import uuid
from bisect import bisect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from relay.pipelines.jobs import JobsPipeline
from workers.jobs.hand_off.task import BadJob, Content, Task

_EMBED = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_SEPARATOR = "\x06\x16"
_HIGHEST_PRIORITY = 9
_REPR_CHARACTERS = 1024
_PERSISTENT = 2


_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class CeleryOptions(msgspec.Struct, forbid_unknown_fields=True):
    """The value of `options.celery`, named as the arguments of `apply_async` are."""

    expires: _Seconds | _Time | None = None
    """Seconds after the job was enqueued, or a time."""
    time_limit: _Seconds | None = None
    soft_time_limit: _Seconds | None = None
    ignore_result: bool = False


class Celery:
    """The messages of one application."""

    name = "Celery"

    def __init__(self, config: JobsPipeline) -> None:
        self.default_queue = config.celery_queue
        self._prefix = config.celery_key_prefix
        self._steps = config.celery_priority_steps

    def check(self, task: Task) -> None:
        _options(task)

    def redis_key(self, task: Task) -> str:
        priority = min(task.priority or 0, _HIGHEST_PRIORITY)
        step = self._steps[bisect(self._steps, priority) - 1]
        return f"{self._prefix}{task.queue}" + (f"{_SEPARATOR}{step}" if step else "")

    def redis_message(self, task: Task) -> bytes:
        return _envelope(task)

    def redis_command(self, key: str, messages: Mapping[str, bytes]) -> list[str | bytes | int]:
        return ["LPUSH", key, *messages.values()]

    def content(self, task: Task) -> Content:
        properties = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "application_headers": _amqp(_headers(task)),
            "priority": task.priority,
            "correlation_id": task.dedup_id,
        }
        return Content(_body(task), properties)


def _envelope(task: Task) -> bytes:
    return msgspec.json.encode(
        {
            "body": base64.b64encode(_body(task)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": _headers(task),
            "properties": {
                "correlation_id": task.dedup_id,
                "reply_to": "",
                "delivery_mode": _PERSISTENT,
                "delivery_info": {"exchange": "", "routing_key": task.queue},
                "priority": task.priority or 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def _body(task: Task) -> bytes:
    return b"[" + task.args + b", " + task.kwargs + b", " + _EMBED + b"]"


def _headers(task: Task) -> dict[str, Any]:
    options = _options(task)
    ours = {
        "lang": "py",
        "task": task.name,
        "id": task.dedup_id,
        "shadow": None,
        "eta": None,
        "expires": _expiry(task, options.expires),
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [options.time_limit, options.soft_time_limit],
        "root_id": task.dedup_id,
        "parent_id": None,
        "argsrepr": _shown(task.args),
        "kwargsrepr": _shown(task.kwargs),
        "origin": "tide-relay",
        "ignore_result": options.ignore_result,
    }
    traced = {} if task.trace_id is None else {"trace_id": task.trace_id}
    return task.headers | traced | ours


def _amqp(value: Any) -> Any:
    """As a table of AMQP can hold it: a number that it has no exact form for becomes its text."""
    if isinstance(value, dict):
        return {name: _amqp(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_amqp(member) for member in value]
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        # Both are made of texts, because a digit that a float does not have must make a difference.
        return near if Decimal(repr(near := float(text))) == Decimal(text) else text
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _options(task: Task) -> CeleryOptions:
    try:
        return msgspec.json.decode(msgspec.json.encode(task.options), type=CeleryOptions)
    except msgspec.ValidationError as error:
        known = ", ".join(CeleryOptions.__struct_fields__)
        raise BadJob("bad_options", f"its options: celery: {error}; known: {known}") from None


def _expiry(task: Task, expires: float | datetime | None) -> str | None:
    if expires is None:
        return None
    if not isinstance(expires, datetime):
        expires = task.created_at + timedelta(seconds=expires)
    return expires.astimezone(UTC).isoformat()


def _shown(arguments: bytes) -> str:
    """What tools such as Flower show of them."""
    return arguments[:_REPR_CHARACTERS].decode(errors="ignore")
