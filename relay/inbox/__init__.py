"""Process an inbox in Python: a handler for each message, in one transaction with its mark."""

from relay.inbox.consumer import Connection, Handler, InboxMessage, Stop, run

__all__ = ["Connection", "Handler", "InboxMessage", "Stop", "run"]
