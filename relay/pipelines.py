"""The configuration of a pipeline, as the database holds it in JSON and as the code uses it.

The database judges what it can (a known outbox, a `sink_type`, an object); everything else is judged here, with
errors that name the key. The keys of a pipeline stand beside those of its sink in one flat object:
this module knows the former, each sink's `config_model` the latter.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from relay.errors import ConfigError
from relay.secret_refs import mask, resolve
from relay.sinks import Features, Sink, SinkConfig, sink_class
from relay.wire import FORMATS, compile_template

M = TypeVar("M", bound=BaseModel)

SUBJECT_KEYS = ("subject_template", "subject")
"""The names of the subject template that every sink understands."""

# A configuration is also checked before its references are resolved: what one stands for may be anything then.
_REFERENCE = re.compile(r"\$\{(?:env|file):[^{}]+\}")


class ForwardPipeline(BaseModel):
    """From an outbox to a sink."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    sink_type: str
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Messages in one publish."""
    poll_interval_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 1_000
    """How often the timer looks when no notification came, and the longest wait for a slow publisher."""
    visibility_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    """The lease: how long a drain may stay silent before its pipeline is drained by another."""
    slice_ms: Annotated[int, Field(ge=10, le=600_000)] = 2_000
    """How long a drain may last before it hands its thread back."""
    subject_template: Annotated[str | None, Field(validation_alias=AliasChoices(*SUBJECT_KEYS), repr=False)] = None
    """Where each message goes inside the sink; the sink's own default where it is null. May hold a secret in a URL."""
    wire_format: str | None = None
    """One of `relay.wire.FORMATS`; the sink's own default where it is null."""
    cloudevents_source: Annotated[str | None, Field(min_length=1)] = None
    """A template for the source of events, a URI reference; `/tide-relay/{outbox}` where it is null."""
    cloudevents_type: Annotated[str | None, Field(min_length=1)] = None
    """A template for their type; the header `type` where it is null, and the outbox's name where that is missing."""
    relay_group_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """Only schedulers of this group may own the pipeline; any may where it is null."""

    @field_validator("wire_format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None and value not in FORMATS and not _REFERENCE.search(value):
            raise ValueError(f"unknown wire_format {value!r}; known: {', '.join(FORMATS)}")
        return value

    @field_validator("subject_template", "cloudevents_source", "cloudevents_type")
    @classmethod
    def _valid_template(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                compile_template(_REFERENCE.sub("", value))
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _slice_within_reason(self) -> Self:
        if self.slice_ms > self.visibility_timeout_ms * 10:
            raise ValueError("slice_ms must not exceed ten times visibility_timeout_ms")
        return self


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """A pipeline's keys and its sink's, both checked."""

    pipeline: ForwardPipeline
    sink: SinkConfig
    sink_class: type[Sink]

    @property
    def subject_template(self) -> str:
        template = self.pipeline.subject_template
        return self.sink_class.features.default_subject if template is None else template

    @property
    def wire_format(self) -> str:
        return self.pipeline.wire_format or self.sink_class.features.default_wire_format

    def make_sink(self, pipeline: str) -> Sink:
        return self.sink_class(self.sink, pipeline)


def parse_forward(config: dict[str, Any], *, resolved: bool = False) -> ForwardConfig:
    """Checks a forward pipeline's configuration.

    With `resolved`, secret references are replaced by their values first, as the worker needs it; without, they are
    only checked to stand where text is expected. Raises ConfigError that names every wrong key.
    """
    if resolved:
        config = resolve(config)
    sink_type = config.get("sink_type")
    if not isinstance(sink_type, str):
        raise ConfigError("sink_type: is missing; name the kind of sink, for example nats")
    kind = sink_class(sink_type)
    ours = _keys(ForwardPipeline)
    problems: list[str] = []
    features = kind.features
    subject_key = features.subject_key or "subject_template"
    known = sorted(
        {*ForwardPipeline.model_fields, *kind.config_model.model_fields} - {"subject_template"} | {subject_key}
    )
    config = _one_subject(config, features, problems)
    if features.subject_required and config.get("subject_template") is None:
        problems.append(f"{subject_key}: is missing")
    pipeline = _validate(
        ForwardPipeline,
        {k: v for k, v in config.items() if k in ours},
        known,
        problems,
        {"subject_template": subject_key},
    )
    sink_keys = {k: v for k, v in config.items() if k not in ours}
    if pipeline and "timeout_ms" not in config:
        default = kind.config_model.model_fields["timeout_ms"].default
        sink_keys["timeout_ms"] = max(10, min(default, pipeline.visibility_timeout_ms // 2))
    sink = _validate(kind.config_model, sink_keys, known, problems)
    if pipeline and sink and sink.timeout_ms >= pipeline.visibility_timeout_ms:
        problems.append(
            f"timeout_ms ({sink.timeout_ms}) must be below visibility_timeout_ms ({pipeline.visibility_timeout_ms}), "
            "so that no publish outlives its lease"
        )
    if problems or pipeline is None or sink is None:
        raise ConfigError("; ".join(problems))
    return ForwardConfig(pipeline, sink, kind)


def _one_subject(config: dict[str, Any], features: Features, problems: list[str]) -> dict[str, Any]:
    """The configuration with its subject template under that name only, whichever of its names was used."""
    own = [features.subject_key] if features.subject_key else []
    given = {name: config[name] for name in (*own, *features.subject_aliases, *SUBJECT_KEYS) if name in config}
    if not given:
        return config
    first, *others = given
    problems += [
        f"{name}: is another name for {first} and says something else; keep one of the two"
        for name in others
        if given[name] != given[first]
    ]
    return {k: v for k, v in config.items() if k not in given} | {"subject_template": given[first]}


def _keys(model: type[BaseModel]) -> set[str]:
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            keys |= {choice for choice in field.validation_alias.choices if isinstance(choice, str)}
        elif isinstance(field.validation_alias, str):
            keys.add(field.validation_alias)
    return keys


def _validate(
    model: type[M],
    values: dict[str, Any],
    known: list[str],
    problems: list[str],
    shown: Mapping[str, str] = MappingProxyType({}),
) -> M | None:
    """`shown` gives the name of a key as the user knows it, where that is another one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems += [_problem(detail, known, shown) for detail in error.errors(include_url=False, include_input=False)]
        return None


def _problem(detail: ErrorDetails, known: list[str], shown: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    key = shown.get(key, key)
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1)
        guess = f", did you mean {near[0]}" if near else ""
        return f"{key}: unknown key{guess}; known: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{key}: is missing"
    text = mask(detail["msg"].removeprefix("Value error, "))
    return f"{key}: {text}" if key else text
