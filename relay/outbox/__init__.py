"""Publish to an outbox from Python, in the transaction of the application, on the connection that it already has.

    from relay import outbox

    outbox.publish(connection, "orders", {"order": 42, "total": Decimal("99.50")}, key="customer-7")

The connection is one of psycopg, SQLAlchemy, SQLModel, asyncpg, psycopg2 or Django; `relay.database.callers` lists
them. Nothing here commits, rolls back or opens a savepoint.
"""

from relay.errors import BadValue, Disabled, NotAllowed, NotFound, Refused, TooLarge
from relay.outbox.publish import Message, publish, publish_async, publish_many, publish_many_async

__all__ = [
    "BadValue",
    "Disabled",
    "Message",
    "NotAllowed",
    "NotFound",
    "Refused",
    "TooLarge",
    "publish",
    "publish_async",
    "publish_many",
    "publish_many_async",
]
