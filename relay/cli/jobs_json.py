"""A job, an attempt or a message of an inbox as JSON for people and programs: its JSON as PostgreSQL has it."""

import json
from dataclasses import asdict
from datetime import datetime
from textwrap import indent
from typing import Any

from relay.operations.inboxes import InboxMessage
from relay.operations.jobs import Attempt, Job

_JSON = ("payload", "headers", "metadata", "options", "result")


def as_json_text(value: Job | Attempt | InboxMessage) -> str:
    """An object over several lines."""
    members = {name: member or "null" if name in _JSON else _text(member) for name, member in asdict(value).items()}
    inner = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in members.items())
    return f"{{\n{indent(inner, '  ')}\n}}"


def _text(value: Any) -> str:
    return json.dumps(value.isoformat() if isinstance(value, datetime) else value, ensure_ascii=False)
