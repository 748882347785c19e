"""What may be said of a job when it is enqueued; pydantic checks it before anything is sent."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from relay.errors import BadValue
from relay.jobs.context import current
from relay.jobs.errors import BadOptions
from relay.jobs.templates import Templates, as_tuple, json_array, json_object
from relay.outbox.json_values import json_text

_COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("priority", "max_attempts"), "int"),
    **dict.fromkeys(("run_key", "idempotency_key", "dedupe_key", "trace_id"), "text"),
    **dict.fromkeys(("headers", "metadata"), "jsonb"),
    **dict.fromkeys(("on_conflict", "dedupe"), "text"),
}
"""Options that go as they are, each as the argument of its name."""
_MEMBERS = "backoff", "after", "run_if", "batch"
_FIXED = {"queue", "timeout", *(name for name, kind in _COLUMNS.items() if kind != "jsonb")}
"""Options that no one can change once they are given, and that do not depend on the time."""
_NOT_OF_TEMPLATES = {
    "at": "give delay, which begins when it is enqueued",
    **dict.fromkeys(("idempotency_key", "on_conflict", "dedupe"), "it is enqueued once, when the job before it ends"),
    "batch": "that may be closed by then; enqueue it in the handler of the job before it",
    **dict.fromkeys(("after", "run_if"), "what it needs may be gone by then; enqueue it at once, with `after`"),
}


def _templates(given: Any) -> Templates:
    try:
        return as_tuple(given)
    except ValueError as error:
        raise PydanticCustomError("templates", str(error)) from None


def _job_id(given: str | UUID) -> str:
    try:
        return str(UUID(str(given)))
    except ValueError:
        raise PydanticCustomError("job_id", "give the ids that enqueue returned, in a list") from None


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
    then: Annotated[Templates, PlainValidator(_templates)] | None
    """Enqueued when the job has succeeded, in the same transaction: `then=send.template(order_id=42)`."""
    after: Sequence[Annotated[str | UUID, AfterValidator(_job_id)]] | None
    """The ids of jobs that must succeed first; if one does not, this one is cancelled."""
    run_if: Literal["succeeded", "ended"] | None
    """`ended`: those of `after` must have ended, however that was."""
    batch: Annotated[int, Field(ge=1)] | None
    """The batch that it belongs to, see `relay.jobs.batch`."""


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
    if "run_if" in found and "after" not in found:
        raise BadOptions(f"{what}: run_if needs after")
    return cast(JobOptions, found)


def columns(options: JobOptions, what: str) -> dict[str, tuple[str, Any]]:
    """What `tide.job_enqueue` is told by options that are checked, each with its type.

    In the order of `_COLUMNS`, whatever that of the options is, so that equal sets of them have one statement.
    """
    found: dict[str, tuple[str, Any]] = {}
    for name, kind in _COLUMNS.items():
        if (value := options.get(name)) is not None:
            found[name] = kind, _json(name, value, what) if kind == "jsonb" else value
    if (timeout := options.get("timeout")) is not None:
        found["timeout_seconds"] = "int", math.ceil(timeout)
    if (available_at := _available_at(options)) is not None:
        found["available_at"] = "timestamptz", available_at
    if "trace_id" not in found and (running := current()) is not None and running.trace_id is not None:
        found["trace_id"] = "text", running.trace_id
    if (members := _members(options, what)) is not None:
        found["options"] = "jsonb", members
    return found


def are_fixed(options: JobOptions) -> bool:
    """Whether `columns` are the same for each job that is not enqueued by another one."""
    return options.keys() <= _FIXED


def of_template(options: Mapping[str, Any], what: str) -> tuple[dict[str, Any], float | None]:
    """Those of a job that is only described, without its delay; and that, in seconds. Raises BadOptions."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, why in _NOT_OF_TEMPLATES.items():
        if name in given:
            raise BadOptions(f"{what}: a template has no {name}: {why}")
    delay = checked({"delay": given.pop("delay", None)}, what).get("delay")
    return given, delay.total_seconds() if isinstance(delay, timedelta) else delay


def _members(options: JobOptions, what: str) -> str | None:
    """What is no column of a job, but a member of its `options`."""
    given = {
        name: _json(name, value, what) for name in _MEMBERS if (value := options.get(name)) is not None and value != []
    }
    if then := options.get("then"):
        given["then"] = json_array(as_tuple(then))
    return json_object(given) if given else None


def _available_at(options: JobOptions) -> datetime | None:
    match options.get("delay"):
        case None:
            return options.get("at")
        case timedelta() as delay:
            return datetime.now(UTC) + delay
        case seconds:
            return datetime.now(UTC) + timedelta(seconds=seconds)


def _json(name: str, value: Any, what: str) -> str:
    try:
        return json_text(value, name)
    except BadValue as error:
        raise BadOptions(f"{what}: {error}") from None
