"""Tables of other systems: read only where who owns them could not run code with our rights."""

from psycopg import sql

from relay.errors import ConfigError
from relay.operations.base import Connection

# Who owns a table, and whether that is a superuser, a role that has our rights, or the owner of the database.
_LOOK = """
    select c.relkind = 'r', r.rolname::text,
           r.rolsuper or pg_has_role(r.oid, current_user, 'member')
           or r.oid = (select d.datdba from pg_database d where d.datname = current_database())
      from pg_class c join pg_roles r on r.oid = c.relowner where c.oid = to_regclass(%s)
"""


def distrust(connection: Connection, relation: sql.Identifier) -> str | None:
    """Why a relation is not read; None if it may be, or is not there."""
    name = relation.as_string(connection)
    row = connection.execute(_LOOK, [name]).fetchone()
    if row is None:
        return None
    is_table, owner, is_trusted = row
    if not is_table:
        return f"{name} is not an ordinary table"
    return None if is_trusted else f"{name} belongs to role {owner!r}, which could run code with your rights"


def lock_if_there(connection: Connection, relation: sql.Identifier) -> bool:
    """Whether a table is there; locked then, so that no one puts another in its place. Raises ConfigError."""
    for looked in range(2):
        reason = distrust(connection, relation)
        if reason is not None:
            raise ConfigError(
                f"{reason}: let it be an ordinary table that belongs to the owner of the database, or to the one of "
                "tide-relay's schema"
            )
        if connection.execute("select to_regclass(%s)", [relation.as_string(connection)]).fetchone() == (None,):
            return False
        if not looked:
            connection.execute(sql.SQL("lock table {} in access share mode").format(relation))
    return True
