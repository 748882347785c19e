"""The configuration of a queue of jobs: how it is drained, how its requests are sent, and which applications its jobs
are handed to.

A job of the kind `dramatiq` or `celery` becomes a message of the user's own application. Where its broker is, and what
the application changed of its defaults, is said once for each queue.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from relay.backends.common.keys import has_reference
from relay.backends.common.tls import TlsKeys
from relay.backends.rabbitmq.config import RabbitmqSinkConfig
from relay.backends.redis.config import RedisKeys
from relay.jobs.http import HttpKeys
from relay.pipelines.config import Pipeline
from relay.pipelines.secret_refs import checked, resolve
from relay.pipelines.validation import refuse, validate

BrokerKeys = RedisKeys | RabbitmqSinkConfig
Kind = Literal["dramatiq", "celery"]
KINDS: tuple[Kind, ...] = ("dramatiq", "celery")
_REDIS, _RABBITMQ = ("redis://", "rediss://"), ("amqp://", "amqps://")
_SCHEMES = (*_REDIS, *_RABBITMQ)
_TLS = ("rediss://", "amqps://")

Url = Annotated[str | None, Field(min_length=1, repr=False)]
QueueName = Annotated[str, Field(min_length=1, max_length=255)]


class JobsPipeline(Pipeline, TlsKeys):
    """A queue of jobs. The TLS keys are for both brokers."""

    visibility_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 5_000
    """How long a process that was killed while it listened keeps others from the queue. Not the lease of jobs."""
    dramatiq_url: Url = None
    """The broker of a Dramatiq application: `redis://`, `rediss://`, `amqp://` or `amqps://`."""
    dramatiq_queue: QueueName = "default"
    """Where messages go that name no queue."""
    dramatiq_namespace: Annotated[str, Field(min_length=1, max_length=200)] = "dramatiq"
    """The namespace of its RedisBroker."""
    celery_url: Url = None
    """The broker of a Celery application, with the same schemes."""
    celery_queue: QueueName = "celery"
    """Where tasks go that name no queue: its `task_default_queue`."""
    celery_key_prefix: Annotated[str, Field(max_length=200)] = ""
    """`global_keyprefix` of its `broker_transport_options`; Redis alone has it."""
    celery_priority_steps: tuple[Annotated[int, Field(ge=0, le=9)], ...] = (0, 3, 6, 9)
    """`priority_steps` of its `broker_transport_options`; Redis alone has them."""
    timeout_ms: Annotated[int, Field(ge=10, le=600_000)] = 10_000
    """The time limit of handing one batch of jobs to a broker."""
    http: HttpKeys = HttpKeys()
    """Of its HTTP jobs."""

    @field_validator("dramatiq_url", "celery_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        if url is not None and not has_reference(url) and not url.startswith(_SCHEMES):
            raise ValueError(f"must begin with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}")
        if url is not None and url.startswith(_REDIS) and "," in url:
            raise ValueError("must name one server of Redis; percent-encode the ',' of a password")
        return url

    @field_validator("celery_priority_steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if steps[:1] != (0,) or list(steps) != sorted(set(steps)):
            raise ValueError("must begin with 0 and ascend, such as [0, 3, 6, 9]")
        return steps

    @model_validator(mode="after")
    def _tls_is_used(self) -> "JobsPipeline":
        urls = [url for url in (self.dramatiq_url, self.celery_url) if url is not None]
        if self.asks_for_tls and not any(url.startswith(_TLS) or has_reference(url) for url in urls):
            raise ValueError("the tls_ keys need a dramatiq_url or celery_url that begins with rediss:// or amqps://")
        return self

    def url_of(self, kind: Kind) -> str | None:
        return self.dramatiq_url if kind == "dramatiq" else self.celery_url


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """The keys of a queue, checked, and those of the brokers that it names."""

    pipeline: JobsPipeline
    brokers: "MappingProxyType[Kind, BrokerKeys]"
    """Without those whose URL is a reference that was not resolved."""


def parse_jobs(config: dict[str, Any], *, resolved: bool = False) -> JobsConfig:
    """Checks the configuration of a queue of jobs; see `relay.pipelines.config.parse_forward`."""
    problems: list[str] = []
    config = resolve(config) if resolved else checked(config, problems)
    pipeline = validate(JobsPipeline, config, sorted(JobsPipeline.model_fields), problems)
    brokers = {} if pipeline is None else {kind: _broker(pipeline, kind, problems) for kind in KINDS}
    refuse(problems)
    assert pipeline is not None
    return JobsConfig(pipeline, MappingProxyType({kind: keys for kind, keys in brokers.items() if keys is not None}))


def _broker(pipeline: JobsPipeline, kind: Kind, problems: list[str]) -> BrokerKeys | None:
    url = pipeline.url_of(kind)
    if url is None or has_reference(url):
        return None
    values: dict[str, Any] = {"url": url}
    if url.startswith(_TLS):
        values |= {key: getattr(pipeline, key) for key in TlsKeys.model_fields}
    shown = {"url": f"{kind}_url"}
    if url.startswith(_REDIS):
        return validate(RedisKeys, values, [], problems, shown)
    # The default exchange, where the routing key is the name of a queue. Queues are for the application to declare.
    values |= {"timeout_ms": pipeline.timeout_ms, "max_in_flight": 1_000}
    return validate(RabbitmqSinkConfig, values, [], problems, shown)
