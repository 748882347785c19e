"""The configuration of a pipeline, as the database holds it in JSON and as the code uses it.

The database checks what it can (a known outbox, a `sink_type`, an object); everything else is checked here, with
errors that name the key. The keys of a pipeline and those of its sink are in one flat object: this module defines the
former, each sink's `config_model` the latter.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from relay.backends.registry import SINKS, SOURCES, sink_class, source_class
from relay.backends.sink import Features, Sink, SinkConfig
from relay.backends.source import ALL, Lane, Source, SourceConfig
from relay.errors import ConfigError
from relay.pipelines.secret_refs import checked, resolve
from relay.pipelines.validation import did_you_mean, keys_of, nearest, refuse, validate
from relay.wire.encode import FORMATS
from relay.wire.templates import compile_template

if TYPE_CHECKING:
    from relay.wire.decode import Decoder

SUBJECT_KEYS = ("subject_template", "subject")
"""The names of the subject template that every sink understands."""

# A configuration is also checked before its references are resolved: then a reference may stand for anything.
_REFERENCE = re.compile(r"\$\{(?:env|file):[^{}]+\}")


MAX_CHARACTERS = 1_000_000


def read_config(text: str) -> dict[str, Any]:
    """The configuration of a pipeline as `tide.pipeline` holds it, which is any JSON object. Raises ConfigError."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the configuration is longer than {MAX_CHARACTERS} characters")
    try:
        values: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or lists that are nested as deep.
        raise ConfigError(f"the configuration cannot be read: {error}") from None
    return values


Lanes = Annotated[int, Field(ge=1, le=64, strict=True)]


class Pipeline(BaseModel):
    """What both directions have."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Messages in one publish, or in one write to an inbox."""
    poll_interval_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 1_000
    """How often to check if no notification came, and the longest wait for a slow publisher, or for a thread that may
    wait on a source."""
    visibility_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    """The lease: how long a drain may stay silent before another may drain its pipeline."""
    slice_ms: Annotated[int, Field(ge=10, le=600_000)] = 2_000
    """How long a drain may last before it gives its thread back."""
    relay_group_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """Only schedulers of this group may own the pipeline; if null, any may."""

    @model_validator(mode="after")
    def _slice_within_reason(self) -> Self:
        if self.slice_ms > self.visibility_timeout_ms * 10:
            raise ValueError("slice_ms must not exceed ten times visibility_timeout_ms")
        return self


class ForwardPipeline(Pipeline):
    """From an outbox to a sink."""

    sink_type: str
    lanes: Lanes = 1
    """How many drains work at a time, each for the messages whose key falls to it; those without a key have one."""
    subject_template: Annotated[str | None, Field(validation_alias=AliasChoices(*SUBJECT_KEYS), repr=False)] = None
    """Where each message goes inside the sink; the sink's own default where it is null. May hold a secret in a URL."""
    wire_format: str | None = None
    """One of `relay.wire.encode.FORMATS`; the sink's own default where it is null."""
    cloudevents_source: Annotated[str | None, Field(min_length=1)] = None
    """A template for the source of events, a URI reference; `/tide-relay/{outbox}` where it is null."""
    cloudevents_type: Annotated[str | None, Field(min_length=1)] = None
    """A template for their type; the header `type` where it is null, and the outbox's name where that is missing."""

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


class ReversePipeline(Pipeline):
    """From a source to an inbox."""

    source_type: str
    lanes: Lanes = 1
    """How many drains receive at a time, each from its part of the source: partitions, or what the server gives it."""
    slice_ms: Annotated[int, Field(ge=10, le=600_000)] = 10_000
    """Longer than forward: a drain waits on its source inside its slice."""
    wire_format: str | None = None
    """One of `relay.wire.decode.FORMATS`; the source's own default where it is null."""
    max_message_bytes: Annotated[int, Field(ge=1, le=256 * 1024 * 1024)] = 1024 * 1024
    """A message whose body is larger becomes a dead letter."""
    event_id: str | None = None
    """Template or JSON path of the id by which the inbox knows a message; the source's own id where it is null."""
    event_type: str | None = None
    aggregate_id: str | None = None
    on_invalid: Literal["dead_letter", "stop"] = "dead_letter"
    """A message that cannot be stored becomes a dead letter, or stops the pipeline until a person acts."""

    @model_validator(mode="after")
    def _can_be_decoded(self) -> Self:
        try:
            self.decoder("pipeline", self.wire_format or "raw")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def decoder(self, pipeline: str, wire_format: str) -> "Decoder":
        from relay.wire.decode import Decoder

        return Decoder(
            pipeline,
            wire_format=wire_format,
            event_id=self.event_id,
            event_type=self.event_type,
            aggregate_id=self.aggregate_id,
            max_message_bytes=self.max_message_bytes,
        )


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
        return self.pipeline.wire_format or self.sink_class.features_for(self.sink).default_wire_format

    def make_sink(self, pipeline: str) -> Sink:
        return self.sink_class(self.sink, pipeline)


def parse_forward(config: dict[str, Any], *, resolved: bool = False) -> ForwardConfig:
    """Checks a forward pipeline's configuration.

    With `resolved`, secret references are replaced by their values first, as the worker needs it; without, only
    their place is checked: they must be where text is expected. Raises ConfigError that names every wrong key.
    """
    problems: list[str] = []
    config = resolve(config) if resolved else checked(config, problems)
    kind = sink_class(_type(config, "sink_type", SINKS, problems))
    ours = keys_of(ForwardPipeline)
    features = kind.features
    subject_key = features.subject_key or "subject_template"
    known = sorted(
        {*ForwardPipeline.model_fields, *kind.config_model.model_fields} - {"subject_template"} | {subject_key}
    )
    config = _one_subject(config, features, problems)
    if features.subject_required and config.get("subject_template") is None:
        problems.append(f"{subject_key}: is missing")
    pipeline = validate(
        ForwardPipeline,
        {k: v for k, v in config.items() if k in ours},
        known,
        problems,
        {"subject_template": subject_key},
    )
    sink = validate(kind.config_model, _rest(config, ours, pipeline, kind.config_model), known, problems)
    if pipeline and sink and sink.timeout_ms >= pipeline.visibility_timeout_ms:
        problems.append(
            f"timeout_ms ({sink.timeout_ms}) must be below visibility_timeout_ms ({pipeline.visibility_timeout_ms}), "
            "so that no publish outlives its lease"
        )
    if pipeline and sink:
        _check_lanes(pipeline.lanes, "sink", kind.features_for(sink).one_lane, problems)
    refuse(problems)
    assert pipeline is not None
    assert sink is not None
    return ForwardConfig(pipeline, sink, kind)


@dataclass(frozen=True, slots=True)
class ReverseConfig:
    """A pipeline's keys and its source's, both checked."""

    pipeline: ReversePipeline
    source: SourceConfig
    source_class: type[Source]

    @property
    def wire_format(self) -> str:
        return self.pipeline.wire_format or self.source_class.features.default_wire_format

    def make_source(self, pipeline: str, lane: Lane = ALL) -> Source:
        source = self.source_class(self.source, pipeline)
        source.lane = lane
        return source

    def make_decoder(self, pipeline: str) -> "Decoder":
        return self.pipeline.decoder(pipeline, self.wire_format)


def parse_reverse(config: dict[str, Any], *, resolved: bool = False) -> ReverseConfig:
    """Checks a reverse pipeline's configuration; see `parse_forward`."""
    problems: list[str] = []
    config = resolve(config) if resolved else checked(config, problems)
    kind = source_class(_type(config, "source_type", SOURCES, problems))
    ours = keys_of(ReversePipeline)
    known = sorted({*ReversePipeline.model_fields, *kind.config_model.model_fields})
    pipeline = validate(ReversePipeline, {k: v for k, v in config.items() if k in ours}, known, problems)
    source = validate(kind.config_model, _rest(config, ours, pipeline, kind.config_model), known, problems)
    if pipeline:
        _check_lanes(pipeline.lanes, "source", kind.features.one_lane, problems)
    refuse(problems)
    assert pipeline is not None
    assert source is not None
    return ReverseConfig(pipeline, source, kind)


def parse(config: dict[str, Any], *, resolved: bool = False) -> ForwardConfig | ReverseConfig:
    """Checks a configuration of either direction, which is known by its `sink_type` or `source_type`."""
    if "source_type" in config and "sink_type" in config:
        raise ConfigError("sink_type, source_type: name one of the two; a pipeline has one direction")
    if "source_type" not in config and "sink_type" not in config:
        for key in list(config)[:100]:
            if meant := nearest(key, ("sink_type", "source_type")):
                raise ConfigError(f"{key}: unknown key, did you mean {meant}?")
        raise ConfigError("sink_type, source_type: name one; for example sink_type nats, or source_type nats")
    return (
        parse_reverse(config, resolved=resolved)
        if "source_type" in config
        else parse_forward(config, resolved=resolved)
    )


def _check_lanes(lanes: int, what: str, one_lane: str | None, problems: list[str]) -> None:
    if lanes > 1 and one_lane:
        problems.append(f"lanes ({lanes}) must be 1 for this {what}: {one_lane}")


def _type(config: dict[str, Any], key: str, known: Mapping[str, str], problems: list[str]) -> str:
    """Raises ConfigError if there is none, or an unknown one: nothing but references can be checked then."""
    value = config.get(key)
    if not isinstance(value, str):
        refuse([*problems, f"{key}: is missing; name the kind of {key.removesuffix('_type')}, for example nats"])
    elif value not in known:
        guess = did_you_mean(value, known)
        refuse([*problems, f"{key}: unknown {key} {value[:80]!r}{guess}; known: {', '.join(sorted(known))}"])
    return str(value)


def _rest(
    config: dict[str, Any], ours: set[str], pipeline: Pipeline | None, model: type[SinkConfig] | type[SourceConfig]
) -> dict[str, Any]:
    """The keys of the sink or source. The default of its time limit is at most half the lease."""
    theirs = {k: v for k, v in config.items() if k not in ours}
    if pipeline and "timeout_ms" not in theirs:
        default = model.model_fields["timeout_ms"].default
        theirs["timeout_ms"] = max(10, min(default, pipeline.visibility_timeout_ms // 2))
    return theirs


def _one_subject(config: dict[str, Any], features: Features, problems: list[str]) -> dict[str, Any]:
    """The configuration with its subject template under that name only, whatever name was used."""
    own = [features.subject_key] if features.subject_key else []
    given = {name: config[name] for name in (*own, *features.subject_aliases, *SUBJECT_KEYS) if name in config}
    if not given:
        return config
    first, *others = given
    problems += [
        f"{name}: is another name for {first}, with a different value; keep one of the two"
        for name in others
        if given[name] != given[first]
    ]
    return {k: v for k, v in config.items() if k not in given} | {"subject_template": given[first]}
