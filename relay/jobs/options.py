"""What may be said of a job when it is enqueued; pydantic checks it before anything is sent."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from relay.errors import BadValue
from relay.jobs.context import current
from relay.jobs.errors import BadOptions
from relay.outbox.json_values import json_text

_Key = Annotated[str, Field(min_length=1, max_length=300)]
_Seconds = Annotated[float, Field(ge=0, le=3.2e9, allow_inf_nan=False)]


class Options(TypedDict, total=False):
    """Each may be left out; None is the same."""

    delay: _Seconds | Annotated[timedelta, Field(ge=timedelta(0))] | None
    """Run it that much later; a number is seconds. By the clock of this machine."""
    at: AwareDatetime | None
    """Run it at that time, with time zone; instead of `delay`."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None
    """Higher ones first. Use few different ones: a queue takes 32."""
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None
    timeout: Annotated[float, Field(gt=0, le=604_800)] | None
    """Seconds that one attempt may take."""
    idempotency_key: _Key | None
    """A second job of the same key, name and arguments is not written: its id is that of the first."""
    on_conflict: Literal["error", "ignore"] | None
    """What a used key with another name or other arguments is: an error (the default), or the first job."""
    run_key: _Key | None
    """Jobs of one key share the queue's limit per key: a tenant, an account."""
    dedupe_key: _Key | None
    """A label to list by; with `dedupe` also a key."""
    dedupe: Literal["waiting", "unfinished"] | None
    """Write no job while another of the same dedupe key waits, or has not ended."""
    trace_id: str | None
    """If left out, that of the job that enqueues."""
    headers: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    backoff: _Seconds | Annotated[Sequence[_Seconds], Field(min_length=1)] | None
    """Seconds until the next attempt; or after the first, after the second ... (the last one repeats)."""


class JobOptions(Options, total=False):
    """Those of a handler's job, which may go to another queue than the handler says."""

    queue: Annotated[str, Field(min_length=1)] | None


class _Checked(JobOptions, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=True)  # type: ignore[misc]


_ADAPTER: TypeAdapter[_Checked] = TypeAdapter(_Checked)


def checked(options: Mapping[str, Any], what: str) -> JobOptions:
    """The options, without each None. Raises BadOptions, which says `what` has them."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        found = _ADAPTER.validate_python(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadOptions(f"{what}: " + "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in problems)) from None
    if "delay" in found and "at" in found:
        raise BadOptions(f"{what}: give delay or at, not both")
    if "dedupe" in found and "dedupe_key" not in found:
        raise BadOptions(f"{what}: dedupe needs a dedupe_key")
    return cast(JobOptions, found)


def columns(options: JobOptions, what: str) -> dict[str, tuple[str, Any]]:
    """What `tide.job_enqueue` is told by options that are checked, each with its type."""
    running = current()
    backoff = options.get("backoff")
    timeout = options.get("timeout")
    found: dict[str, tuple[str, Any]] = {
        "priority": ("int", options.get("priority")),
        "max_attempts": ("int", options.get("max_attempts")),
        "timeout_seconds": ("int", None if timeout is None else math.ceil(timeout)),
        "available_at": ("timestamptz", _available_at(options)),
        "run_key": ("text", options.get("run_key")),
        "idempotency_key": ("text", options.get("idempotency_key")),
        "dedupe_key": ("text", options.get("dedupe_key")),
        "trace_id": ("text", options.get("trace_id", running.trace_id if running else None)),
        "headers": ("jsonb", _json("headers", options.get("headers"), what)),
        "metadata": ("jsonb", _json("metadata", options.get("metadata"), what)),
        "options": ("jsonb", _json("backoff", None if backoff is None else {"backoff": backoff}, what)),
        "on_conflict": ("text", options.get("on_conflict")),
        "dedupe": ("text", options.get("dedupe")),
    }
    return {name: each for name, each in found.items() if each[1] is not None}


def _available_at(options: JobOptions) -> datetime | None:
    match options.get("delay"):
        case None:
            return options.get("at")
        case timedelta() as delay:
            return datetime.now(UTC) + delay
        case seconds:
            return datetime.now(UTC) + timedelta(seconds=seconds)


def _json(name: str, value: Any, what: str) -> str | None:
    try:
        return None if value is None else json_text(value, name)
    except BadValue as error:
        raise BadOptions(f"{what}: {error}") from None
