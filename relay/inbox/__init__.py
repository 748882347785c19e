"""Process an inbox in Python: a handler for each message, in one transaction with its mark."""

from relay.inbox.asynchronous import run_async
from relay.inbox.consumer import run
from relay.inbox.message import AsyncConnection, AsyncHandler, Connection, Handler, InboxMessage, Stop

__all__ = ["AsyncConnection", "AsyncHandler", "Connection", "Handler", "InboxMessage", "Stop", "run", "run_async"]
