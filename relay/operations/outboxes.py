"""Outboxes: create them."""

from relay.operations.base import Connection, one


def create(connection: Connection, name: str) -> bool:
    """Creates an outbox; False if it exists. Raises ConfigError for a name that an outbox cannot have."""
    return bool(one(connection, "outbox_create", outbox=name))
