"""Jobs without their handler at hand: those of other programs, HTTP requests, tasks of Dramatiq and Celery.

`connection` is one of the application's own, of psycopg, SQLAlchemy, asyncpg, psycopg2 or Django. A job is one
statement on it, and is there if the application's transaction commits. Nothing is committed, rolled back or put
behind a savepoint. Each function returns the UUID of the job, or of that which has its key already.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, Unpack

from relay.errors import BadValue
from relay.jobs.errors import BadArguments, BadOptions
from relay.jobs.http import KEYS, check_http_payload
from relay.jobs.options import Options, checked, columns, of_template
from relay.jobs.sending import Kind, NewJob, send, send_async, send_many, send_many_async
from relay.jobs.templates import Template, template_of
from relay.outbox.json_values import json_text

Arguments: TypeAlias = Mapping[str, Any] | None
Positional: TypeAlias = Sequence[Any]


class HttpOptions(Options, total=False):
    """A request has one body at most: `json`, `text` or `base64`."""

    name: str
    """For listings and logs; by default the host of the URL."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    """POST by default."""
    json: Any
    text: str
    base64: str
    """Any bytes, encoded so."""


def enqueue(connection: Any, queue: str, name: str, payload: Arguments = None, **options: Unpack[Options]) -> str:
    """A job for the handler `name` of some worker; `payload` has the arguments by their names."""
    return send(connection, _job(queue, "python", name, payload or {}, options))


async def enqueue_async(
    connection: Any, queue: str, name: str, payload: Arguments = None, **options: Unpack[Options]
) -> str:
    return await send_async(connection, _job(queue, "python", name, payload or {}, options))


def enqueue_many(
    connection: Any, queue: str, name: str, payloads: Sequence[Arguments], **options: Unpack[Options]
) -> list[str]:
    """Jobs of one name, in one statement. Only those of a handler, with `@job(key=...)`, can have a key each."""
    return send_many(connection, _jobs(queue, name, payloads, options))


async def enqueue_many_async(
    connection: Any, queue: str, name: str, payloads: Sequence[Arguments], **options: Unpack[Options]
) -> list[str]:
    return await send_many_async(connection, _jobs(queue, name, payloads, options))


def enqueue_http(connection: Any, queue: str, url: str, **request: Unpack[HttpOptions]) -> str:
    """A request that a worker sends; the option `headers` has its headers."""
    return send(connection, _request(queue, url, dict(request)))


async def enqueue_http_async(connection: Any, queue: str, url: str, **request: Unpack[HttpOptions]) -> str:
    return await send_async(connection, _request(queue, url, dict(request)))


def enqueue_dramatiq(
    connection: Any,
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> str:
    """A message for an actor of the application's own Dramatiq: a worker hands it to Dramatiq's broker.

    `message` is what the application's broker is told: `{"queue": ..., "priority": ..., "dramatiq": {...}}`.
    """
    return send(connection, _message(queue, "dramatiq", task, args, kwargs, message, options))


async def enqueue_dramatiq_async(
    connection: Any,
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> str:
    return await send_async(connection, _message(queue, "dramatiq", task, args, kwargs, message, options))


def enqueue_celery(
    connection: Any,
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> str:
    """A message for a task of the application's own Celery: a worker hands it to Celery's broker.

    `message` is what the application's broker is told: `{"queue": ..., "priority": ..., "celery": {...}}`.
    """
    return send(connection, _message(queue, "celery", task, args, kwargs, message, options))


async def enqueue_celery_async(
    connection: Any,
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> str:
    return await send_async(connection, _message(queue, "celery", task, args, kwargs, message, options))


def template(queue: str, name: str, payload: Arguments = None, **options: Unpack[Options]) -> Template:
    """A job that `enqueue` would enqueue, to follow another one (`then=...`) or to end a batch."""
    what = _what(queue, name)
    rest, delay = of_template(options, what)
    return template_of(_job(queue, "python", name, payload or {}, rest), delay, what)


def template_http(queue: str, url: str, **request: Unpack[HttpOptions]) -> Template:
    what = _what_request(queue, request.get("name"))
    rest, delay = of_template(request, what)
    return template_of(_request(queue, url, rest), delay, what)


def template_dramatiq(
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> Template:
    what = _what(queue, task)
    rest, delay = of_template(options, what)
    return template_of(_message(queue, "dramatiq", task, args, kwargs, message, rest), delay, what)


def template_celery(
    queue: str,
    task: str,
    args: Positional = (),
    kwargs: Arguments = None,
    *,
    message: Arguments = None,
    **options: Unpack[Options],
) -> Template:
    what = _what(queue, task)
    rest, delay = of_template(options, what)
    return template_of(_message(queue, "celery", task, args, kwargs, message, rest), delay, what)


def _job(queue: str, kind: Kind, name: str, payload: Mapping[str, Any], options: Mapping[str, Any]) -> NewJob:
    what = _what(queue, name)
    return NewJob(queue, kind, name, _payload(payload, what), columns(checked(options, what), what))


def _message(
    queue: str,
    kind: Kind,
    task: str,
    args: Positional,
    kwargs: Arguments,
    message: Arguments,
    options: Mapping[str, Any],
) -> NewJob:
    job = _job(queue, kind, task, {"args": args, "kwargs": kwargs or {}}, options)
    if not message:
        return job
    what = _what(queue, task)
    if unknown := message.keys() - {"queue", "priority", kind}:
        raise BadOptions(f"{what}: message has no {', '.join(sorted(unknown))}; known: queue, priority, {kind}")
    given = json.loads(job.value("options") or "{}")
    try:
        text = json_text({**given, **message}, "message")
    except BadValue as error:
        raise BadOptions(f"{what}: {error}") from None
    return replace(job, columns={**job.columns, "options": ("jsonb", text)})


def _jobs(queue: str, name: str, payloads: Sequence[Arguments], options: Mapping[str, Any]) -> list[NewJob]:
    what = _what(queue, name)
    shared = columns(checked(options, what), what)
    if single := shared.keys() & {"idempotency_key", "dedupe_key"}:
        raise BadOptions(f"{what}: {', '.join(sorted(single))} cannot be that of several jobs")
    return [NewJob(queue, "python", name, _payload(each or {}, what), shared) for each in payloads]


def _request(queue: str, url: str, options: dict[str, Any]) -> NewJob:
    name = options.pop("name", None)
    payload = {"url": url, "method": "POST"} | {key: options.pop(key) for key in KEYS if key in options}
    try:
        host = check_http_payload(payload, options.get("headers"))
    except BadArguments as error:
        raise BadArguments(f"{_what_request(queue, name)}: {error}") from None
    return _job(queue, "http", name or host[:200], payload, options)


def _payload(payload: Mapping[str, Any], what: str) -> str:
    if not isinstance(payload, Mapping):
        raise BadArguments(f"{what}: its payload must be a mapping of argument names to values")
    try:
        return json_text(payload, "payload")
    except BadValue as error:
        raise BadArguments(f"{what}: {error}") from None


def _what_request(queue: str, name: str | None) -> str:
    return f"job {name or 'http'!r} of queue {queue!r}"


def _what(queue: str, name: str) -> str:
    if not 1 <= len(name) <= 200:
        raise BadOptions(f"a job of queue {queue!r} needs a name of 1 to 200 characters")
    return f"job {name!r} of queue {queue!r}"
