"""A job that is only described: one that follows another, or that ends a batch.

PostgreSQL makes a job of it, in the transaction in which the other one ends. So it is JSON: the arguments of
`tide.job_enqueue`, written and checked as those of a job that is enqueued at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.errors import BadValue
from relay.jobs.errors import BadOptions
from relay.jobs.sending import NewJob
from relay.outbox.json_values import json_text

WANTED = "give a template, such as send.template(order_id=42), or a list of templates"


@dataclass(frozen=True, slots=True)
class Template:
    """Made by `template` of a handler, or by `relay.jobs.template`, which check it."""

    queue: str
    name: str
    text: str = field(repr=False)
    """JSON, as `options.then` and `tide.job_batch_create` take it."""


Templates = Template | Sequence[Template]


def template_of(job: NewJob, delay_seconds: float | None, what: str) -> Template:
    """Raises BadOptions, which says `what` has the option."""
    try:
        members = {name: json_text(getattr(job, name), name) for name in ("queue", "name", "kind")}
        members["payload"] = job.payload
        for name, (kind, value) in job.columns.items():
            members[name] = str(value) if kind == "jsonb" else json_text(value, name)
    except BadValue as error:
        raise BadOptions(f"{what}: {error}") from None
    if delay_seconds is not None:
        members["delay_seconds"] = json.dumps(delay_seconds)
    return Template(job.queue, job.name, json_object(members))


def as_tuple(given: Any) -> tuple[Template, ...]:
    """Raises ValueError for what is not Templates."""
    found = [given] if isinstance(given, Template) else given
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(t, Template) for t in found):
        raise ValueError(WANTED)
    return tuple(found)


def json_array(templates: Sequence[Template]) -> str:
    return f"[{','.join(each.text for each in templates)}]"


def json_object(members: Mapping[str, str]) -> str:
    """Of members that are JSON already: what was written and checked once is not read again."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"
