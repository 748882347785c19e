"""All checks of `relay doctor`."""

from collections.abc import Iterator

import psycopg

from relay.broker.factory import make_broker, ping
from relay.database.connection import Connection, connect
from relay.errors import NotConnected, RelayError
from relay.masking import mask
from relay.operations.base import refusals
from relay.operations.doctor import database, inboxes, jobs, pipelines, queues
from relay.operations.doctor.findings import Check, Finding, failed, ok
from relay.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, as the checks make them. Without a database, the checks that need one are left out.

    Needs more than a connection: it looks as the processes with these settings do. Raises nothing of ours.
    """
    yield from _broker(settings)
    try:
        connection = connect(settings, "tide-relay doctor")
    except RelayError as error:
        yield failed(
            "connection", str(error), "check the URL, that PostgreSQL runs there, and that it accepts this role"
        )
        return
    with connection:
        yield ok("connection", mask(settings.postgres_url))
        for check in (*database.CHECKS, *queues.CHECKS, *pipelines.CHECKS, *inboxes.CHECKS, *jobs.CHECKS):
            yield from _run(check, connection, settings)


def _run(check: Check, connection: Connection, settings: Settings) -> Iterator[Finding]:
    """A check that fails to run is a finding too, and does not keep the others from running."""
    try:
        with refusals():
            yield from check(connection, settings)
    except RelayError as error:
        yield failed(check.__name__.replace("_", " "), str(error), "fix this, and run relay doctor again")
    except (psycopg.Error, UnicodeError) as error:
        # Such as a text of a database that is not UTF8: other checks say what is wrong.
        found = mask(f"{type(error).__name__}: {' '.join(str(error).split())}")
        yield failed(check.__name__.replace("_", " "), found, "fix what else is found, and run relay doctor again")


# Codes of a Redis that answers, and takes no writes.
_NO_WRITES = {"read_only", "cluster", "out_of_memory", "unavailable", "not_replicated"}


def _broker(settings: Settings) -> Iterator[Finding]:
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
        yield failed("broker", str(error), fix)
    else:
        yield ok("broker", mask(settings.broker_url))
