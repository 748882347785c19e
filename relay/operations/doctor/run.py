"""All checks of `relay doctor`: one cause is one failed finding, and what depends on it is skipped."""

from collections.abc import Iterator

import psycopg

from relay.broker.factory import make_broker, ping
from relay.database.connection import Connection, connect
from relay.errors import NotConnected, RelayError
from relay.masking import mask
from relay.operations.base import refusals
from relay.operations.doctor import database, inboxes, jobs, pipelines, processes, queues, streams, workers
from relay.operations.doctor.findings import Check, Finding, failed, ok, skipped
from relay.settings import Settings

OF_SERVER: tuple[Check, ...] = (database.server,)
OF_SCHEMA: tuple[Check, ...] = (
    *database.CHECKS, *queues.CHECKS, *processes.CHECKS, *pipelines.CHECKS, *inboxes.CHECKS, *jobs.CHECKS,
    *streams.CHECKS,
)  # fmt: skip
"""Those that read tables of ours."""

# What else cannot be read where one of these has failed.
ROOTS = ("rights", "encoding")


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, as the checks make them.

    Needs more than a connection: it looks as the processes with these settings do. Raises nothing of ours.
    """
    broker = _broker(settings)
    yield broker
    try:
        connection = connect(settings, "tide-relay doctor")
    except RelayError as error:
        yield failed(
            "connection", str(error), "check the URL, that PostgreSQL runs there, and that it accepts this role"
        )
        for check in (*OF_SERVER, database.migrations, database.rights, *OF_SCHEMA):
            yield skipped(_name(check), "connection")
        return
    with connection:
        yield ok("connection", mask(settings.postgres_url))
        yield from _Examination(connection, settings, has_broker=broker.result == "ok").run()


class _Examination:
    """Of one database."""

    def __init__(self, connection: Connection, settings: Settings, *, has_broker: bool) -> None:
        self._connection = connection
        self._settings = settings
        self._has_broker = has_broker
        self._failed: list[str] = []
        self._errors: dict[str, str] = {}
        """Why checks could not be made, and the first of each."""

    def run(self) -> Iterator[Finding]:
        for check in OF_SERVER:
            yield from self._check(check)
        schema = list(self._check(database.migrations))
        # What a role lacks of another schema says nothing; and without rights the schema cannot be read.
        is_other = any(f.result == "failed" for f in schema) and not self._errors
        rights = [skipped("rights", "migrations")] if is_other else list(self._check(database.rights))
        if "rights" in self._failed:
            schema = [f if f.result != "failed" else skipped(f.check, "rights") for f in schema]
        yield from (*schema, *rights)
        for check in OF_SCHEMA:
            if is_other:
                yield skipped(_name(check), "migrations")
            elif check is queues.queues and not self._has_broker:
                for alone in workers.ALONE:
                    yield from self._check(alone)
                yield skipped(_name(check), "broker")
            else:
                yield from self._check(check)

    def _check(self, check: Check) -> Iterator[Finding]:
        """A check that cannot be made is a finding too, and does not keep the others from being made."""
        try:
            with refusals():
                for finding in check(self._connection, self._settings):
                    if finding.result == "failed":
                        self._failed.append(finding.check)
                    yield finding
        except RelayError as error:
            yield self._not_made(_name(check), str(error), "fix this, and run relay doctor again")
        except (psycopg.Error, UnicodeError) as error:
            # Such as a text of a database that is not UTF8: other checks say what is wrong.
            found = mask(f"{type(error).__name__}: {' '.join(str(error).split())}")
            yield self._not_made(_name(check), found, "fix what else is found, and run relay doctor again")

    def _not_made(self, name: str, error: str, fix: str) -> Finding:
        """A failed finding, unless its cause has one already."""
        causes = [root for root in ROOTS if root in self._failed]
        # A lost connection first says how it was lost, and then that it is closed.
        first = self._errors.get(error) or ("connection" in self._errors and self._errors["connection"])
        if causes or first:
            return skipped(name, causes[0] if causes else str(first))
        self._errors[error] = name
        if self._connection.closed:
            self._errors["connection"] = name
        self._failed.append(name)
        return failed(name, error, fix)


def _name(check: Check) -> str:
    return check.__name__.replace("_", " ")


# Codes of a Redis that answers, and takes no writes.
_NO_WRITES = {"read_only", "cluster", "out_of_memory", "unavailable", "not_replicated"}


def _broker(settings: Settings) -> Finding:
    try:
        broker = make_broker(settings.broker_url)
        try:
            ping(broker)
        finally:
            broker.close()
    except RelayError as error:
        fix = "check --broker-url (RELAY_BROKER_URL), and that the broker runs there"
        if isinstance(error, NotConnected) and error.code in _NO_WRITES:
            fix = "give a Redis that takes writes: a single server, or the primary of replicas, with memory to spare"
        return failed("broker", str(error), fix)
    return ok("broker", mask(settings.broker_url))
