"""Calls of our SQL functions on a connection of the application, whichever library it is of.

`call` and `call_async` take part in the transaction that the connection is in, as any statement of the application
does: they never commit, roll back or open a savepoint. After an error PostgreSQL has aborted that transaction, and the
application rolls it back, or to a savepoint of its own. On a connection in autocommit the call is a transaction of
its own.

What PostgreSQL refuses is raised as an error of `relay.errors`, with the driver's error as its cause. What befalls the
transaction or the connection (a deadlock, a time limit, a lost server) stays the driver's own error, since the
application handles it for its other statements too.

- `table.py`: from the type of a connection, by name, so that no library is imported, to how it is called
- `statement.py`: the statement, in the library's style of placeholders
- `refusals.py`: from what any driver raises to our errors
"""

from typing import Any

from relay.database.callers.refusals import refusals
from relay.database.callers.statement import Arguments, Call, Statement, Value, statement_of
from relay.database.callers.table import method_of

__all__ = ["Arguments", "Call", "Value", "call", "call_async", "execute", "execute_async"]

Rows = list[tuple[Any, ...]]


def call(connection: Any, function: str, arguments: Arguments) -> Rows:
    """The rows of `select * from tide.FUNCTION(name => value, ...)`, in the transaction of the connection.

    `arguments` gives a type of PostgreSQL and a value for each name; a jsonb is its text, a `Call` is a value too.
    Functions, names and types must be constants of the code. Raises TypeError for a connection that cannot be used so,
    and says which can.
    """
    return execute(connection, statement_of(function, arguments))


async def call_async(connection: Any, function: str, arguments: Arguments) -> Rows:
    """The same, on an asynchronous connection."""
    return await execute_async(connection, statement_of(function, arguments))


def execute(connection: Any, statement: Statement) -> Rows:
    """As `call`, of a statement that `statement_of` made."""
    run = method_of(connection, is_async=False)
    with refusals():
        rows: Rows = run(connection, statement)
    return rows


async def execute_async(connection: Any, statement: Statement) -> Rows:
    """The same, on an asynchronous connection."""
    run = method_of(connection, is_async=True)
    with refusals():
        rows: Rows = await run(connection, statement)
    return rows
