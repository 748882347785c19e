"""Roles that may log in, for one test: roles are the server's, so they must go with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import uuid4

from psycopg import sql

from tests.services.postgres import Database

Make = Callable[..., tuple[str, str]]


@contextmanager
def logins(database: Database) -> Iterator[Make]:
    """Gives `make(*grants, name=None, member_of=())`, which gives (name, url) of a new role.

    `grants` are functions of the schema that take a role, such as "grant_publisher".
    """
    made: list[str] = []

    def make(*grants: str, name: str | None = None, member_of: tuple[str, ...] = ()) -> tuple[str, str]:
        name = name or f"role_{uuid4().hex[:8]}"
        with database.admin() as admin:
            admin.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
            made.append(name)
            for group in member_of:
                admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(name)))
        with database.connect() as owner:
            for grant in grants:
                owner.execute(sql.SQL("select tide.{}(%s)").format(sql.Identifier(grant)), [name])
        return name, database.server.process.url_of(database.name, quote(name), "secret")

    try:
        yield make
    finally:
        with database.admin() as admin:
            for name in made:
                admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
                admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))
