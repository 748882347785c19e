"""Opening a connection that leaves nothing behind when it fails."""

from typing import Protocol, TypeVar


class Connection(Protocol):
    def open(self) -> None: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)


def opened(connection: C) -> C:
    """The connection, open; closed, if `open` raises anything."""
    try:
        connection.open()
    except BaseException:
        connection.close()
        raise
    return connection
