"""What the verbs for dead letters and replays ask about a pipeline: whether it is there, and whether it redelivers."""

from typing import Any

from relay.backends.registry import SOURCES, source_class
from relay.backends.source import PassiveSource
from relay.cli.base import rows
from relay.database.connection import Connection
from relay.errors import ConfigError

LARGEST_ID = 2**63 - 1


def configured(connection: Connection, pipeline: str) -> dict[str, Any]:
    """The pipeline's row of `pipeline_list`. Raises ConfigError if there is none."""
    for row in rows(connection, "pipeline_list", names=[pipeline]):
        return row
    raise ConfigError(f"pipeline {pipeline} does not exist; list them: relay pipeline list")


def require_known(connection: Connection, pipeline: str | None) -> None:
    """Nothing was found of the pipeline: raises ConfigError if that is because its name is wrong."""
    if pipeline is not None:
        configured(connection, pipeline)


def require_redelivering(connection: Connection, pipeline: str) -> None:
    """Raises ConfigError if no worker drains the pipeline, or none can: a request would wait for ever."""
    source_type = configured(connection, pipeline)["config"].get("source_type")
    source = source_class(source_type) if source_type in SOURCES else None
    if source is not None and issubclass(source, PassiveSource):
        command = source.brought_by.format(pipeline=pipeline)
        raise ConfigError(
            f"pipeline {pipeline} has nobody who retries: its messages are brought by `{command}`, not by a worker. "
            "Take the message from relay dead-letter show, mend it, send it again, and discard the dead letter"
        )
