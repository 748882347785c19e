"""A job of kind dramatiq or celery as what both systems call for: a task with a name, arguments, a queue and an id.

The arguments stay the JSON text that PostgreSQL printed, and numbers in headers and options stay text where a float
could not hold them: so no number loses a digit on the way.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from relay.jobs.models import Claimed
from relay.pipelines.jobs import Kind

MOST_PRIORITY = 255
"""AMQP has one byte for it."""


class Task(NamedTuple):
    dedup_id: str
    """The id of the task or message: the job's, so that it is the same however often the job is handed off."""
    queue: str
    name: str
    args: bytes
    """A JSON list."""
    kwargs: bytes
    """A JSON object."""
    priority: int | None
    headers: dict[str, Any]
    options: dict[str, Any]
    """What the job says for the system alone: the value of `options.dramatiq` or `options.celery`."""
    trace_id: str | None
    created_at: datetime


class Content(NamedTuple):
    """A task as AMQP carries it."""

    body: bytes
    properties: dict[str, Any]
    """By py-amqp's names; None: not sent."""


class System(Protocol):
    """What Dramatiq and Celery differ in: their messages, and their keys in Redis."""

    name: str
    default_queue: str

    def check(self, task: Task) -> None:
        """Raises BadJob for options that the system does not have."""

    def redis_key(self, task: Task) -> str:
        """The list that the task goes to; tasks of one key go in one command."""

    def redis_message(self, task: Task) -> bytes: ...

    def redis_command(self, key: str, messages: Mapping[str, bytes]) -> list[str | bytes | int]:
        """What puts messages, by the ids of their tasks, into that list: all, or none if it is refused."""

    def content(self, task: Task) -> Content:
        """The message for AMQP."""


class BadJob(Exception):
    """No application could take this job; it says why. `code` is a short stable word."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")


class _Options(msgspec.Struct):
    queue: str | None = None
    priority: int | None = None
    dramatiq: dict[str, Any] = {}
    celery: dict[str, Any] = {}


_PAYLOAD = msgspec.json.Decoder(_Payload)
_OPTIONS = msgspec.json.Decoder(_Options, float_hook=msgspec.Raw)
_HEADERS = msgspec.json.Decoder(dict[str, Any], float_hook=msgspec.Raw)


def make_task(job: Claimed, default_queue: str, system: Kind) -> Task:
    """Raises BadJob."""
    try:
        payload = _PAYLOAD.decode(job.payload)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadJob("bad_payload", f'its payload must be {{"args": [...], "kwargs": {{...}}}}: {error}') from None
    args, kwargs = bytes(payload.args), bytes(payload.kwargs)
    if args[:1] != b"[" or kwargs[:1] != b"{":
        raise BadJob("bad_payload", "in its payload, args must be a list and kwargs an object")
    try:
        options = _OPTIONS.decode(job.options or "{}")
        headers = _HEADERS.decode(job.headers or "{}")
    except msgspec.MsgspecError as error:
        raise BadJob("bad_options", f"its options or headers: {error}") from None
    if options.priority is not None and not 0 <= options.priority <= MOST_PRIORITY:
        raise BadJob(
            "bad_options", f"its options: priority is {options.priority}, it must be from 0 to {MOST_PRIORITY}"
        )
    queue = default_queue if options.queue is None else options.queue
    if not 0 < len(queue.encode()) <= 255:
        raise BadJob("bad_options", "its options: queue must be a name of 1 to 255 bytes")
    return Task(
        dedup_id=job.uuid,
        queue=queue,
        name=job.name,
        args=args,
        kwargs=kwargs,
        priority=options.priority,
        headers=headers,
        options=options.dramatiq if system == "dramatiq" else options.celery,
        trace_id=job.trace_id,
        created_at=job.created_at,
    )
