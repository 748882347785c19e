"""Settings of a process, read once at its start and then frozen.

Each has a command line option and two environment variables: `RELAY_X` and, if you are migrating from pgtrickle-relay,
`PGTRICKLE_RELAY_X`. The order is: option, `RELAY_X`, `PGTRICKLE_RELAY_X`, default. An empty variable counts as not set.
docs/reference/settings.md lists them all; a test keeps the list complete.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AliasChoices, AliasGenerator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay import reach
from relay.errors import ConfigError
from relay.known_secrets import remember
from relay.masking import MASKED, mask, remember_url
from relay.setting_values import (
    Address,
    BrokerUrl,
    Folders,
    HostNames,
    LogFormat,
    LogLevel,
    Modules,
    PostgresUrl,
    Prefixes,
    QueueNames,
    Seconds,
    Tokens,
)
from relay.wording import worded

PREFIXES = reach.NEVER_VARIABLES

PGRELAY = {
    "postgres_url": "PGRELAY_DATABASE_URL",
    "api_auth_tokens": "PGRELAY_API_AUTH_TOKENS",
    "api_read_only_auth_tokens": "PGRELAY_API_READ_ONLY_AUTH_TOKENS",
    "job_queues": "PGRELAY_WORKER_QUEUES",
    "job_slots": "PGRELAY_WORKER_CONCURRENCY",
    "job_lease_seconds": "PGRELAY_WORKER_LEASE_SECONDS",
    "job_grace_seconds": "PGRELAY_WORKER_SHUTDOWN_GRACE_SECONDS",
    "job_http_hosts": "PGRELAY_HTTP_ALLOWED_HOSTS",
}
"""The variables of PgRelay that stand for a field; see docs/migrating-from/pgrelay.md."""

_PREFIX_ADVICE = (
    "correct the name, or unset it (unset NAME, env -u NAME); all names that begin with RELAY_ are ours: if it is of "
    "another program, give it another prefix. docs/reference/settings.md lists them"
)
_REACH = reach.Reach()

# Kubernetes sets such variables for every service of the namespace; those of a service "relay-..." look like ours.
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def variables(field: str) -> tuple[str, ...]:
    """The environment variables of a field, by precedence."""
    stem = field.removeprefix("relay_").removesuffix("_seconds").upper()
    of_pgrelay = (PGRELAY[field],) if field in PGRELAY else ()
    return (*(prefix + stem for prefix in PREFIXES), *of_pgrelay)


def option(field: str) -> str:
    """The command line option of a field."""
    return "--" + field.removesuffix("_seconds").replace("_", "-")


class Settings(BaseSettings):
    """What a scheduler, a worker process or a command needs to know before it reads the database."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        alias_generator=AliasGenerator(validation_alias=lambda field: AliasChoices(*variables(field))),
    )

    postgres_url: PostgresUrl
    """Where the schema `tide` lives: a URL or a libpq string."""
    broker_url: BrokerUrl = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://`, `unix://`, `amqp://` or `amqps://`."""
    metrics_addr: Address = "0.0.0.0:9090"
    """The address where the scheduler serves `/metrics`, `/health` and `/ready`."""
    worker_metrics_addr: Address = "0.0.0.0:9191"
    """Where one `dramatiq relay.workers` serves `/metrics`, `/health` and `/ready` for all its processes."""
    api_addr: Address = "0.0.0.0:8080"
    """Where `relay api` receives webhooks."""
    api_metrics_addr: Address = "0.0.0.0:9292"
    """Where `relay api` serves `/metrics`, `/health` and `/ready`: not on the public address."""
    admin_addr: Address = "0.0.0.0:8090"
    """Where `relay api` serves the admin API, if it has tokens."""
    api_auth_tokens: Tokens = ()
    """Bearer tokens of the admin API. Without any it is not served."""
    api_read_only_auth_tokens: Tokens = ()
    """Bearer tokens of the admin API that only read."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    relay_group_id: Annotated[str, Field(min_length=1, max_length=200)] = "default"
    """A scheduler owns pipelines of its group, and those without a group; the schedulers of a group share them."""
    discovery_interval_seconds: Seconds = 10.0
    """How often to read the pipelines again, in case a notification was lost."""
    maintenance_interval_seconds: Seconds = 30.0
    """How often to remove old settled messages; of many schedulers, one requests it."""
    worker_processes: Annotated[int, Field(ge=1, le=1024)] = Field(default_factory=_available_cpus)
    worker_threads: Annotated[int, Field(ge=1, le=1024)] = 8
    """How many drains each process runs at a time."""
    worker_shutdown_timeout_seconds: Seconds = 30.0
    connect_timeout_seconds: Seconds = 5.0
    """To PostgreSQL."""
    statement_timeout_seconds: Seconds = 30.0
    """How long one statement may run in PostgreSQL."""
    secret_variables: Prefixes = _REACH.secret_variables
    secret_folders: Folders = _REACH.secret_folders
    sink_folders: Folders = _REACH.sink_folders
    source_folders: Folders = _REACH.source_folders
    ambient_credentials: bool = _REACH.ambient_credentials
    """These five: what pipelines may reach on this machine; see `relay.reach`."""
    job_modules: Modules = ()
    """Python modules with handlers of jobs, which worker processes import; with one, they run jobs."""
    job_queues: QueueNames = ()
    """The queues whose jobs they run; by default those of their handlers."""
    job_slots: Annotated[int, Field(ge=1, le=100_000)] = 100
    """How many jobs each process runs at a time that are coroutines or requests."""
    job_threads: Annotated[int, Field(ge=1, le=1024)] = 8
    """How many that are plain functions; and as many in processes of their own."""
    job_lease_seconds: Seconds = 30.0
    """How long a process may be silent before its jobs are given to others. The same for schedulers and workers."""
    job_grace_seconds: Seconds = 20.0
    """How long the jobs that run may go on when their process stops."""
    job_http_hosts: HostNames = _REACH.job_http_hosts
    """What HTTP jobs may reach from it; none: every host."""

    @field_validator("*", mode="before")
    @classmethod
    def _without_line_end(cls, value: object, info: ValidationInfo) -> object:
        """A secret that is made of a file often ends with one, and nothing that is meant does."""
        if not isinstance(value, str) or not value.endswith(("\n", "\r")):
            return value
        field = cls.model_fields[info.field_name or ""]
        text = value.rstrip("\r\n")
        return text if text or field.is_required() else field.get_default(call_default_factory=True)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Reads the environment, and puts into force what pipelines may reach.

        `overrides` are command line options by field name, None where not given.

        `_seconds` may be left out of a name, as in `discovery_interval="500ms"`.
        Raises ConfigError that names each invalid option or variable, its value unless it is secret, and those known.
        """
        given = {_field(name): value for name, value in overrides.items() if value is not None}
        problems = _unknown(os.environ)
        advice = f"; {_PREFIX_ADVICE}" if problems else ""
        try:
            settings = cls(**given)
        except ValidationError as error:
            problems += [_explain(detail, given) for detail in error.errors(include_url=False)]
        if problems:
            raise ConfigError(f"wrong settings: {'; '.join(problems)}{advice}")
        remember_url(settings.postgres_url)
        remember_url(settings.broker_url)
        for token in (*settings.api_auth_tokens, *settings.api_read_only_auth_tokens):
            remember(token)
        remember(os.environ.get("PGPASSWORD", ""))  # of libpq, where the URL has none
        reach.put_in_force(settings.reach)
        return settings

    @property
    def reach(self) -> reach.Reach:
        return reach.Reach(**{name: getattr(self, name) for name in reach.Reach.__dataclass_fields__})

    @property
    def runs_jobs(self) -> bool:
        """Whether worker processes run jobs."""
        return bool(self.job_modules or self.job_queues)

    def as_variables(self, *names: str) -> dict[str, str]:
        """These settings for the environment of another program."""
        return {variables(name)[0]: _as_text(getattr(self, name)) for name in names}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, mask(value) if isinstance(value, str) else MASKED if value and "token" in str(name) else value

    def __str__(self) -> str:
        return repr(self)


def _as_text(value: object) -> str:
    return (",".join(value) or "none") if isinstance(value, tuple) else str(value)


def _field(name: str) -> str:
    for field in (name, f"{name}_seconds"):
        if field in Settings.model_fields:
            return field
    raise TypeError(f"no such setting: {name!r}; known: {', '.join(Settings.model_fields)}")


def known_variables() -> list[str]:
    """Every `RELAY_*` variable, sorted."""
    return sorted(variables(field)[0] for field in Settings.model_fields)


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """An error, not a warning: a wrong name of a setting that protects something must not pass."""
    known = known_variables()
    ours = [name for name in environ if name.startswith("RELAY_") and not _SERVICE_LINK.search(name)]
    return [
        f"unknown environment variable {name}={_shown(name, environ[name])}{_meant(name, known)}"
        for name in sorted(ours)
        if name not in known
    ]


def _meant(name: str, known: Sequence[str]) -> str:
    """Compared without the prefix, which all have."""
    stems = {each.removeprefix("RELAY_"): each for each in known}
    near = difflib.get_close_matches(name.removeprefix("RELAY_")[:80].upper(), stems, n=1)
    return f", did you mean {stems[near[0]]}?" if near else ""


def _shown(name: str, value: object) -> str:
    if name in ("secret_variables", "secret_folders"):  # which hold none
        return repr(mask(str(value)))
    # An unknown variable could hold anything, so its value is shown only if its name does not suggest a secret.
    secret = re.search(r"URL|PASS|SECRET|TOKEN|KEY|CRED|DSN", name.upper())
    return MASKED if secret else repr(mask(str(value)))


def _explain(detail: ErrorDetails, given: Mapping[str, object]) -> str:
    where = str(detail["loc"][0]) if detail["loc"] else ""
    field = next((field for field in Settings.model_fields if where == field or where in variables(field)), where)
    if detail["type"] == "missing":
        return f"{field} is not set: give {option(field)} or set {variables(field)[0]}"
    source, value = _source(field, given)
    return f"{source}={_shown(field, value)}: {worded(detail)}"


def _source(field: str, given: Mapping[str, object]) -> tuple[str, object]:
    if field in given:
        return option(field), given[field]
    variable = next((name for name in variables(field) if os.environ.get(name)), variables(field)[0])
    return variable, os.environ.get(variable, "")
