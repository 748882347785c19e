"""Who changed which pipeline, when, and what."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.masking import mask_config
from relay.operations.base import Connection, rows
from relay.operations.pipelines import require_known

Changes = dict[str, dict[str, Any]]
"""key -> its values under `old` and `new`, each only if there is one. Secrets are masked."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one pipeline."""

    changed_at: datetime
    pipeline: str
    action: str
    """create, change, enable, disable or delete."""
    changed_by: str
    """The database role."""
    program: str
    """The application name of its session."""
    changes: Changes


def read(connection: Connection, pipeline: str | None = None, *, limit: int = 100) -> list[Change]:
    """The last changes of one pipeline, or of all, the latest last; also of pipelines that were deleted.

    Raises ConfigError if the pipeline never existed.
    """
    found = rows(connection, "history", pipeline=pipeline, max_rows=limit)
    if not found:
        require_known(connection, pipeline)
    return [
        Change(
            row["changed_at"], row["pipeline"], row["action"], row["changed_by"], row["program"],
            changes(row["old"], row["new"]),
        )
        for row in found
    ]  # fmt: skip


def changes(old: dict[str, Any] | None, new: dict[str, Any] | None) -> Changes:
    """What differs between two descriptions of a pipeline; the keys of its configuration begin with `config.`."""
    before, after = _flat(old), _flat(new)
    shown = {"old": _flat(old, masked=True), "new": _flat(new, masked=True)}
    return {
        key: {side: values[key] for side, values in shown.items() if key in values}
        for key in dict.fromkeys([*before, *after])
        if _exactly(before, key) != _exactly(after, key)
    }


def _exactly(values: dict[str, Any], key: str) -> str | None:
    """As text, because in Python true equals 1. None if there is no such key; null is a value."""
    return json.dumps(values[key], sort_keys=True) if key in values else None


def _flat(described: dict[str, Any] | None, *, masked: bool = False) -> dict[str, Any]:
    if described is None:
        return {}
    config = described["config"]
    beside = {key: value for key, value in described.items() if key != "config"}
    return beside | {f"config.{key}": value for key, value in (mask_config(config) if masked else config).items()}
