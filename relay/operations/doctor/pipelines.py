"""The checks of `relay doctor` that concern pipelines, as seen from the process that runs it."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from functools import cache

from relay.database.connection import Connection
from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import counted, rows
from relay.operations.doctor.findings import NAMES_SHOWN, Check, Finding, failed, ok, some, warning
from relay.operations.libraries import DISTRIBUTION, missing_distributions
from relay.operations.pipelines import parse_stored
from relay.operations.status_reasons import failed_for
from relay.pipelines.secret_refs import resolve
from relay.settings import Settings

_RECEIVED_BY_API = "api"


def pipelines(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Configurations, client libraries and secrets of all pipelines, and how their drains failed."""
    found = rows(connection, "pipeline_list", names=None)
    # What is installed is read from files: once for each backend.
    lacks = cache(missing_distributions)
    quiet, known = True, set()
    for row in found:
        for finding in _pipeline(row["name"], row["direction"], row["config"], lacks):
            quiet = False
            if finding.result == "failed":
                known.add(row["name"])
            yield finding
    for finding in _broken(connection, known):
        quiet = False
        yield finding
    if quiet:
        yield ok("pipelines", f"{len(found)}, all valid, none broken" if found else "none yet")


Lacks = Callable[[str], list[str]]


def _pipeline(name: str, direction: str, config: dict[str, object], lacks: Lacks) -> Iterator[Finding]:
    check = f"pipeline {name}"
    try:
        parse_stored(direction, config)
    except ConfigError as error:
        verbs = {
            "jobs": f"jobs queue set {name.removeprefix('jobs.')} --config with a valid configuration",
            "stream": f"stream set {name.removeprefix('streams.')} --schedule ...",
        }
        verb = verbs.get(direction, f"pipeline set {name} ... with a valid configuration")
        yield failed(check, mask(f"invalid: {error}"), f"relay {verb}")
        return
    if direction not in ("jobs", "stream"):
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


def _broken(connection: Connection, known: Container[str]) -> Iterator[Finding]:
    """Pipelines that wait for someone to act, a line for each cause. Not those of which more is known here already."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows(connection, "doctor_broken"):
        if row["name"] not in known:
            names[mask(failed_for(row))].append(row["name"])
    # Most pipelines first; what is the same for many is what to look at.
    causes = sorted(names.items(), key=lambda item: -len(item[1]))
    for cause, those in causes[:NAMES_SHOWN]:
        many = counted(len(those), "pipeline is", "pipelines are")
        check = f"pipeline {those[0]}" if len(those) == 1 else "pipelines"
        found = f"broken: {cause}" if len(those) == 1 else f"{many} broken ({some(those)}): {cause}"
        yield failed(
            check, found, "change what the error names; it is retried all the same, so nothing else is to be done"
        )
    if left := [name for _, those in causes[NAMES_SHOWN:] for name in those]:
        found = f"{counted(len(left), 'more pipeline is', 'more pipelines are')} broken, for other causes: {some(left)}"
        yield failed("pipelines", found, "see why: relay status")


def cautions(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """What workers found out about backends that break a promise."""
    for row in rows(connection, "pipeline_cautions"):
        fix = "use a backend that keeps it, or have receivers recognize duplicates: see the backend's page"
        yield warning(f"pipeline {row['pipeline']}", mask(row["caution"]), fix)


CHECKS: tuple[Check, ...] = (pipelines, cautions)
