"""The check of `relay doctor` that concerns inboxes: messages whose handling has failed for the last time."""

from collections.abc import Iterator

from relay.database.connection import Connection
from relay.operations import inboxes as operations
from relay.operations.base import counted
from relay.operations.doctor.findings import Check, Finding, ok, warning
from relay.operations.inboxes import DeadNumber
from relay.settings import Settings


def inboxes(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Dead messages, which nothing retries; and inboxes that cannot be looked at."""
    count = found = 0
    for inbox in operations.dead_numbers(connection):
        count += 1
        if inbox.dead != 0:
            found += 1
            yield _finding(inbox)
    if not found:
        number = counted(count, "inbox", "inboxes")
        yield ok("inboxes", f"{number} without dead messages" if count else "none yet")


def _finding(inbox: DeadNumber) -> Finding:
    name = inbox.inbox
    if inbox.dead is None:
        return warning("inboxes", f"inbox {name} could not be looked at", f"see why: relay inbox status {name}")
    since = f", the oldest since {inbox.oldest_at:%Y-%m-%d %H:%M:%S} UTC" if inbox.oldest_at else ""
    dead = counted(inbox.dead, "dead message")
    fix = f"see the errors: relay inbox messages {name} --dead; after a fix: relay inbox replay {name} --all-dead"
    return warning("inboxes", f"inbox {name} has {dead}{since}: handling has failed for the last time", fix)


CHECKS: tuple[Check, ...] = (inboxes,)
