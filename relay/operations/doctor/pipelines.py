"""The checks of `relay doctor` that concern pipelines, as seen from the process that runs it."""

from collections.abc import Callable, Iterator
from functools import cache

from relay.database.connection import Connection
from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import rows
from relay.operations.doctor.findings import Check, Finding, failed, ok, warning
from relay.operations.libraries import DISTRIBUTION, missing_distributions
from relay.operations.pipelines import parse_stored
from relay.pipelines.secret_refs import resolve
from relay.settings import Settings

_RECEIVED_BY_API = "api"


def pipelines(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Configurations, client libraries and secrets of all pipelines."""
    found = rows(connection, "pipeline_list", names=None)
    # What is installed is read from files: once for each backend.
    lacks = cache(missing_distributions)
    bad = 0
    for row in found:
        for finding in _pipeline(row["name"], row["direction"], row["config"], lacks):
            bad += 1
            yield finding
    if not bad:
        yield ok("pipelines", f"{len(found)}, all valid" if found else "none yet")


Lacks = Callable[[str], list[str]]


def _pipeline(name: str, direction: str, config: dict[str, object], lacks: Lacks) -> Iterator[Finding]:
    check = f"pipeline {name}"
    try:
        parse_stored(direction, config)
    except ConfigError as error:
        verb = (
            f"jobs queue set {name.removeprefix('jobs.')} --config"
            if direction == "jobs"
            else f"pipeline set {name} ..."
        )
        yield failed(check, mask(f"invalid: {error}"), f"relay {verb} with a valid configuration")
        return
    if direction != "jobs":
        yield from _libraries(check, config, lacks)
    try:
        resolve(config)
    except ConfigError as error:
        # A warning only: this process may lack the secrets of the workers.
        fix = "set it where the workers run; if it is set there, all is well"
        yield warning(check, f"unresolved secret in this process: {error}", fix)


def _libraries(check: str, config: dict[str, object], lacks: Lacks) -> Iterator[Finding]:
    backend = str(config.get("sink_type") or config["source_type"])
    extra = _RECEIVED_BY_API if config.get("source_type") == "webhook" else backend.replace("_", "-")
    if absent := lacks(extra):
        fix = f"where it runs: pip install '{DISTRIBUTION}[{extra}]'"
        yield failed(check, f"{backend} needs {', '.join(absent)}, which is not installed here", fix)


def cautions(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """What workers found out about backends that break a promise."""
    for row in rows(connection, "pipeline_cautions"):
        fix = "use a backend that keeps it, or have receivers recognize duplicates: see the backend's page"
        yield warning(f"pipeline {row['pipeline']}", mask(row["caution"]), fix)


CHECKS: tuple[Check, ...] = (pipelines, cautions)
