"""A dead letter as JSON for people and programs: payload and headers as PostgreSQL has them, with every digit."""

import json
from base64 import b64encode
from datetime import datetime
from textwrap import indent
from typing import Any

from relay.operations.dead_letters import DeadLetter

_FORWARD = ("outbox", "message_id", "published_at")
_REVERSE = ("inbox", "event_id", "subject")
_WHY = ("code", "reason", "attempts", "first_failed_at", "failed_at", "retry_requested_at")


def as_json_text(letter: DeadLetter) -> str:
    """An object over several lines."""
    forward = letter.outbox is not None
    names = ("dead_letter_id", "pipeline", *(_FORWARD if forward else _REVERSE), "key", *_WHY)
    members = {name: _text(getattr(letter, name)) for name in names}
    members["headers"] = letter.headers or "null"
    members |= {"payload": letter.payload or "null"} if forward else _body(letter.body or b"")
    inner = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in members.items())
    return f"{{\n{indent(inner, '  ')}\n}}"


def _body(body: bytes) -> dict[str, str]:
    """What was received: as text if it is UTF-8, else as base64, so that no byte is lost."""
    try:
        return {"body": _text(body.decode())}
    except UnicodeDecodeError:
        return {"body_base64": _text(b64encode(body).decode())}


def _text(value: Any) -> str:
    return json.dumps(value.isoformat() if isinstance(value, datetime) else value, ensure_ascii=False)
