"""Which database this is; `tide.database_identity` says of what it is made."""

from relay.database.connection import Connection, database_errors
from relay.sql import query


def read_identity(connection: Connection) -> str:
    """16 hexadecimal digits. Raises NotConnected, or MigrationError in a database without the schema."""
    with database_errors():
        row = connection.execute(query("database_identity")).fetchone()
    assert row is not None
    return str(row[0])
