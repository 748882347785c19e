"""A job or an attempt as JSON for people and programs: what is JSON in it as PostgreSQL has it, with every digit."""

import json
from dataclasses import asdict
from datetime import datetime
from textwrap import indent
from typing import Any

from relay.operations.jobs import Attempt, Job

_JSON = ("payload", "headers", "metadata", "options", "result")


def as_json_text(value: Job | Attempt) -> str:
    """An object over several lines."""
    members = {name: member or "null" if name in _JSON else _text(member) for name, member in asdict(value).items()}
    inner = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in members.items())
    return f"{{\n{indent(inner, '  ')}\n}}"


def _text(value: Any) -> str:
    return json.dumps(value.isoformat() if isinstance(value, datetime) else value, ensure_ascii=False)
