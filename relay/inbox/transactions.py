"""How a message is marked and handled in one transaction: on the connection of the run, or in one of the application's.

The mark is first. If the handler continued after an error had ended its transaction, or ended it by itself, a message
would count as handled though nothing of it is committed; so each way here asks at the end whether it is still open.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

from psycopg.pq import TransactionStatus

from relay.database.callers import Value, call, call_async
from relay.errors import ConfigError, NotConnected, RelayError
from relay.inbox.message import Connection, InboxMessage
from relay.reasons import reason_of

Handling = Callable[[Connection, InboxMessage], bool]
"""Is given the connection of the run; whether the message was held still, and is handled. Raises what handlers do."""

_ENDED = "the handler continued after an error had ended its transaction"


class NotBegun(Exception):
    """The message is not to blame: the transaction could not begin, or was none. `reason` is to be raised."""

    def __init__(self, reason: RelayError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Abandoned(Exception):
    """The run is cancelled while the handler works: its message is given back."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The worker of an inbox, and its marks."""

    inbox: str
    worker: str

    def arguments(self, message: InboxMessage) -> dict[str, tuple[str, Value]]:
        return {
            "inbox": ("text", self.inbox),
            "event_ids": ("text[]", [message.event_id]),
            "worker": ("text", self.worker),
        }

    def mark(self, connection: Any, message: InboxMessage) -> bool:
        [(marked,)] = call(connection, "inbox_mark_processed", self.arguments(message))
        return bool(marked)

    async def mark_async(self, connection: Any, message: InboxMessage) -> bool:
        [(marked,)] = await call_async(connection, "inbox_mark_processed", self.arguments(message))
        return bool(marked)

    def require_open(self, connection: Any, message: InboxMessage) -> None:
        """Its mark, which says that the message is no longer held, is still there."""
        try:
            ended = self.mark(connection, message)
        except Exception as error:
            raise RuntimeError(_ENDED) from error
        if ended:
            raise RuntimeError(_ENDED)

    async def require_open_async(self, connection: Any, message: InboxMessage) -> None:
        try:
            ended = await self.mark_async(connection, message)
        except Exception as error:
            raise RuntimeError(_ENDED) from error
        if ended:
            raise RuntimeError(_ENDED)


def on_own_connection(handler: Callable[[Connection, InboxMessage], object], holder: Holder) -> Handling:
    """The handler has the connection of the run."""

    def handle(connection: Connection, message: InboxMessage) -> bool:
        done = False  # also after psycopg.Rollback, which the transaction keeps to itself
        with connection.transaction():
            if holder.mark(connection, message):
                handler(connection, message)
                if connection.info.transaction_status is not TransactionStatus.INTRANS:
                    raise RuntimeError(_ENDED)
                done = True
        return done

    return handle


def in_transactions(
    begin: Callable[[], AbstractContextManager[Any]], handler: Callable[[Any, InboxMessage], object], holder: Holder
) -> Handling:
    """The handler has what `begin()` gives; its context commits, or rolls back if an error leaves it."""
    confirm = Confirm(holder)

    def handle(own: Connection, message: InboxMessage) -> bool:
        begun = False
        try:
            with (context := begin()) as given:
                connection = _of_django(context) if given is None else given
                if not holder.mark(connection, message):
                    return False
                begun = True
                handler(connection, message)
                holder.require_open(connection, message)
        except Exception as error:
            if not begun:
                raise NotBegun(_not_begun(message, error)) from error
            raise
        confirm(own, message)
        return True

    return handle


async def handle_async(
    begin: Callable[[], AbstractAsyncContextManager[Any]],
    handler: Callable[[Any, InboxMessage], Any],
    holder: Holder,
    message: InboxMessage,
) -> bool:
    """The same, of a coroutine."""
    begun = False
    try:
        async with begin() as connection:
            if not await holder.mark_async(connection, message):
                return False
            begun = True
            await handler(connection, message)
            await holder.require_open_async(connection, message)
    except Exception as error:
        if not begun:
            raise NotBegun(_not_begun(message, error)) from error
        raise
    return True


@dataclass(slots=True)
class Confirm:
    """Sees once that a context that has ended has committed: `Session` ends too but does not, `Session.begin` does."""

    holder: Holder
    done: bool = False

    def __call__(self, own: Connection, message: InboxMessage) -> None:
        if self.done:
            return
        with own.transaction(force_rollback=True):
            if self.holder.mark(own, message):
                raise NotBegun(
                    ConfigError(
                        f"inbox {self.holder.inbox}: the handler's transaction was not committed: give as transaction="
                        " what commits in this database, such as Session.begin, engine.begin or transaction.atomic"
                    )
                )
        self.done = True


def _of_django(context: Any) -> Any:
    """The connection of a `transaction.atomic()`, which gives None; None for others."""
    if type(context).__module__ != "django.db.transaction":
        return None
    return sys.modules["django.db"].connections[context.using or "default"]


def _not_begun(message: InboxMessage, error: Exception) -> RelayError:
    if isinstance(error, RelayError | TypeError | AttributeError):
        return ConfigError(f"transaction= cannot be used for message {message.event_id}: {error}")
    return NotConnected(f"the transaction of message {message.event_id} cannot begin: {reason_of(error)}")
