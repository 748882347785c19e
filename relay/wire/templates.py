"""Templates: text with variables in braces, filled in from a message or from a record.

There are two kinds. A `Template` makes the subject of a record; it is compiled once per drain, because it is on the hot
path. A `RecordTemplate` makes what a sink computes from a finished record, such as a Kafka key.
"""

import json
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from relay.errors import ConfigError
from relay.models import Message, Record
from relay.wire.json_text import encode_value

encode_json: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Compact JSON, non-ASCII as it is."""

Headers = Mapping[str, Any]
"""A message's headers, parsed; empty if nothing reads them."""

Part = str | Callable[[Message, Headers], str]
"""A piece of a subject: text, or a function that makes the text from a message."""


def header_text(value: Any) -> str:
    """A header's value, one of `json_text.values`, as text: strings as they are, everything else as compact JSON."""
    return value if isinstance(value, str) else encode_value(value).decode()


# The same for every message of a drain.
_CONSTANTS = ("outbox", "stream_table", "pipeline")

# Different for each message.
_VARIABLES: dict[str, Callable[[Message, Headers], str]] = {
    "op": lambda _message, headers: header_text(headers.get("op", "insert")),
    "outbox_id": lambda message, _headers: str(message.id),
    "refresh_id": lambda _message, headers: header_text(headers.get("refresh_id", "")),
    "type": lambda _message, headers: header_text(headers.get("type", "")),
    "aggregate_type": lambda _message, headers: header_text(headers.get("aggregate_type", "")),
    "key": lambda message, _headers: message.key or "",
}
_VARIABLES_OF_HEADERS = frozenset({"op", "refresh_id", "type", "aggregate_type"})

TEMPLATE_VARIABLES = (*_CONSTANTS, *_VARIABLES)
"""The variables of a subject template."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed subject template: literal text and variable names, alternating."""

    text: str
    parts: tuple[tuple[str, str | None], ...]
    """(literal, name of the variable after it or None)."""

    def bind(self, outbox: str, pipeline: str) -> tuple[Part, ...]:
        """The parts, with constants filled in and joined; a single string if nothing else is left."""
        constants = {"outbox": outbox, "stream_table": outbox, "pipeline": pipeline}
        bound: list[Part] = [""]
        for literal, name in self.parts:
            _append(bound, literal + constants.get(name or "", ""))
            if name in _VARIABLES:
                bound.append(_VARIABLES[name])
        return tuple(bound)

    @property
    def reads_headers(self) -> bool:
        return any(name in _VARIABLES_OF_HEADERS for _, name in self.parts)


def _append(bound: list[Part], text: str) -> None:
    last = bound[-1]
    if isinstance(last, str):
        bound[-1] = last + text
    elif text:
        bound.append(text)


def compile_template(text: str) -> Template:
    """Parses a subject template such as `orders.{op}`; `{{` and `}}` stand for braces.

    Raises ConfigError, listing the known variables, for an unknown variable or unbalanced braces.
    """
    return Template(text, parse_template("template", text, TEMPLATE_VARIABLES))


def parse_template(what: str, text: str, variables: Collection[str]) -> tuple[tuple[str, str | None], ...]:
    """Pairs of (literal, variable after it or None). `what` names the template in errors.

    Raises ConfigError, listing `variables`, for an unknown variable or unbalanced braces.
    """
    known = ", ".join(f"{{{name}}}" for name in variables)
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(
            f"{what} {text!r} has unbalanced braces ({error}); write {{{{ or }}}} for a literal brace; "
            f"known variables: {known}"
        ) from None
    for _, name, spec, conversion in fields:
        if name is not None and (spec or conversion or not (name in variables or _is_header(name, variables))):
            wrong = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ConfigError(f"{what} {text!r} has an unknown variable {{{wrong}}}; known: {known}")
    return tuple((literal, name) for literal, name, _, _ in fields)


def _is_header(name: str, variables: Collection[str]) -> bool:
    return HEADER_VARIABLE in variables and header_name(name) is not None


def header_name(variable: str) -> str | None:
    """The header that `header.NAME` or `headers[NAME]` stands for; None for any other variable."""
    if variable.startswith("header."):
        return variable.removeprefix("header.") or None
    if variable.startswith("headers[") and variable.endswith("]"):
        return variable[len("headers[") : -1] or None
    return None


HEADER_VARIABLE = "header.NAME"
"""Stands for any header in a list of variables; `headers[NAME]` means the same."""

_RECORD_VARIABLES: dict[str, Callable[[Record], str]] = {
    "key": lambda record: record.key or "",
    "outbox": lambda record: record.dedup_id.rpartition(":")[0],
    "outbox_id": lambda record: str(record.id),
    "subject": lambda record: record.subject,
    "type": lambda record: record.headers.get("type", ""),
}

RECORD_VARIABLES = (*_RECORD_VARIABLES, HEADER_VARIABLE)
"""The variables of a `RecordTemplate`; `{headers[NAME]}` means `{header.NAME}`."""


class RecordTemplate:
    """A template that a sink fills in from a finished record, such as a Kafka key.

    A header that a record does not have is empty, and so is a missing key. Raises ConfigError, listing the known
    variables, for an unknown variable or unbalanced braces.
    """

    def __init__(self, text: str, what: str = "template") -> None:
        """`what` names the template in errors."""
        parts: list[str | Callable[[Record], str]] = []
        for literal, name in parse_template(what, text, RECORD_VARIABLES):
            parts.append(literal)
            if name is not None:
                parts.append(_RECORD_VARIABLES.get(name) or _header_of(name))
        self.text = text
        self._parts = [part for part in parts if part != ""]

    def render(self, record: Record) -> str:
        return "".join([part if isinstance(part, str) else part(record) for part in self._parts])


def _header_of(variable: str) -> Callable[[Record], str]:
    name = header_name(variable)
    assert name is not None
    return lambda record: record.headers.get(name, "")
