"""Translates the configuration of a pipeline of pg_tide into our keys, and names the keys that have none.

pg_tide keeps one JSON object for each pipeline, which had several shapes over its versions: the parts of source and
sink in objects of their own (`source`, `sink`, or `config`), or the sink's name in `sink` and its keys in `params`, or
everything flat. All of them are understood.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relay.backends.registry import sink_class, source_class
from relay.errors import ConfigError
from relay.pipelines.config import SUBJECT_KEYS, ForwardPipeline, ReversePipeline, parse
from relay.pipelines.validation import keys_of

Config = dict[str, Any]

_TYPES = {"object-storage": "object_storage", "pg_outbox": "inbox"}
# Theirs -> ours, where the names differ. Everything else has the same name, or none.
_KEYS = {
    "topic_template": "topic",
    "stream_key": "stream",
    "stream_key_template": "stream",
    "max_len": "maxlen",
    "routing_key_template": "routing_key",
    "endpoint": "endpoint_url",
    "timeout_secs": "request_timeout_ms",
    "ssrf_protection": "allow_private_network",
}


def _same(value: Any) -> Any:
    return value


_VALUES: dict[str, Callable[[Any], Any]] = {
    "timeout_secs": lambda value: value * 1000 if isinstance(value, int) else value,
    "ssrf_protection": lambda value: not value,
}
# Keys that only describe how the other system works, or what always holds here.
_NEEDLESS = {
    "schema_version", "outbox", "stream_table", "consumer_group", "consumer_id", "idempotent", "visibility_seconds",
    "name", "raw", "payload_mode", "signing_algorithm",
}  # fmt: skip
_SHAPE = {"source_type", "source", "sink_type", "sink", "config", "params", "inbox", "inbox_table"}


@dataclass
class Translated:
    """A pipeline in our keys. `box` is its outbox or its inbox; `problem` says why it cannot be created."""

    box: str | None
    config: Config
    group: str | None = None
    left_out: list[str] = field(default_factory=list)
    problem: str | None = None


def forward(theirs: Config) -> Translated:
    source = _object(theirs, "source")
    kind = theirs.get("sink_type") or _text(theirs.get("sink"))
    box = _text(source.get("outbox") or theirs.get("outbox") or theirs.get("stream_table"))
    made = Translated(box, {}, _text(source.get("consumer_group") or theirs.get("consumer_group")))
    parts = _flat(theirs) | source | _part(theirs, "sink")
    return _translate(made, "sink_type", kind, parts)


def reverse(theirs: Config) -> Translated:
    sink = _object(theirs, "sink")
    kind = theirs.get("source_type") or _text(theirs.get("source"))
    made = Translated(_text(sink.get("inbox") or theirs.get("inbox") or theirs.get("inbox_table")), {})
    return _translate(made, "source_type", kind, _flat(theirs) | _part(theirs, "source"))


def _translate(made: Translated, role: str, kind: Any, parts: Config) -> Translated:
    kind = _TYPES.get(str(kind), kind)
    try:
        known = _known(role, kind)
    except ConfigError as error:
        made.problem = str(error)
        return made
    made.config = {role: kind}
    for name, value in parts.items():
        ours = _KEYS.get(name, name)
        if ours in known:
            made.config[ours] = _VALUES.get(name, _same)(value)
        elif name not in _NEEDLESS:
            made.left_out.append(name)
    if made.box is None:
        made.problem = "it names no " + ("outbox" if role == "sink_type" else "inbox")
        return made
    try:
        parse(made.config)
    except ConfigError as error:
        made.problem = str(error)
    return made


def _known(role: str, kind: Any) -> set[str]:
    if not isinstance(kind, str):
        raise ConfigError(f"it names no {role}")
    if role == "source_type":
        return keys_of(ReversePipeline) | keys_of(source_class(kind).config_model)
    sink = sink_class(kind)
    own = {sink.features.subject_key} if sink.features.subject_key else set()
    return keys_of(ForwardPipeline) | keys_of(sink.config_model) | own | {*sink.features.subject_aliases, *SUBJECT_KEYS}


def _flat(theirs: Config) -> Config:
    return {name: value for name, value in theirs.items() if name not in _SHAPE}


def _part(theirs: Config, name: str) -> Config:
    return _object(theirs, name) or _object(theirs, "config") or _object(theirs, "params")


def _object(theirs: Config, name: str) -> Config:
    value = theirs.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
