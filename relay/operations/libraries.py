"""Whether the client libraries that a configuration needs are installed here.

Here is not where the workers are: so a person may say that they have them (`--library-on-workers`), and a scheduler
never marks a pipeline as invalid for this.
"""

import re
from collections.abc import Iterable
from importlib import metadata

from relay.backends.redis.config import RedisKeys
from relay.errors import ConfigError
from relay.pipelines.config import ForwardConfig, ReverseConfig
from relay.pipelines.jobs import JobsConfig

DISTRIBUTION = "tide-relay"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*;.*\bextra == ['\"]([^'\"]+)['\"]")


def require(config: ForwardConfig | ReverseConfig | JobsConfig) -> None:
    """Raises ConfigError that says what to install, and how to say that the workers have it."""
    lacks = {extra: absent for extra in _extras(config) if (absent := missing_distributions(extra))}
    if lacks:
        names = ", ".join(dict.fromkeys(name for absent in lacks.values() for name in absent))
        raise ConfigError(
            f"it needs {names}, which is not installed on this machine: "
            f"pip install '{DISTRIBUTION}[{','.join(lacks)}]' here and where it runs; "
            "if the workers have it, give --library-on-workers"
        )


def missing_distributions(extra: str) -> list[str]:
    """The distributions of an extra that are not installed. An extra has the name of its backend."""
    wanted = (_REQUIREMENT.match(line) for line in metadata.requires(DISTRIBUTION) or ())
    names = [match[1] for match in wanted if match and match[2] == extra]
    return [name for name in names if not _is_installed(name)]


def _extras(config: ForwardConfig | ReverseConfig | JobsConfig) -> Iterable[str]:
    match config:
        case ForwardConfig():
            return config.sink.extras(config.pipeline.sink_type)
        case ReverseConfig():
            return config.source.extras(config.pipeline.source_type)
        case JobsConfig():
            return {"redis" if isinstance(keys, RedisKeys) else "rabbitmq" for keys in config.brokers.values()}


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
