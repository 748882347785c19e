"""Loads the project's SQL: named statements of `queries/`, numbered migrations, function files.

No SQL is built at run time.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString, cast

_HEADING = re.compile(r"^-- .* -{10,}\n", re.MULTILINE)
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")
_COMPATIBLE = re.compile(r"^-- compatible: yes$", re.MULTILINE)
_TRIGGER = re.compile(r"^create or replace trigger .*?;$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, `NNNN_name.sql`."""

    version: int
    name: str
    sql: LiteralString

    @property
    def compatible(self) -> bool:
        """Whether programs that do not know it go on working: a line `-- compatible: yes` says so. Without one: no."""
        return bool(_COMPATIBLE.search(self.sql))


@dataclass(frozen=True, slots=True)
class FunctionFile:
    """The functions of one topic, `functions/<topic>.sql`, as they are now."""

    name: str
    sql: LiteralString

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()

    @property
    def without_triggers(self) -> LiteralString:
        """What takes no lock on a table: a trigger is replaced only when its file has changed."""
        return _TRIGGER.sub("", self.sql)


@cache
def statements() -> dict[str, LiteralString]:
    """Every statement of `queries/` by its name. Raises ValueError if two have the same name."""
    return parse_statements(
        entry.read_text("utf-8") for entry in sorted(_folder("queries"), key=lambda entry: entry.name)
    )


def parse_statements(texts: Iterable[str]) -> dict[str, LiteralString]:
    """One statement after each line `-- name: NAME`. Raises ValueError if two have the same name."""
    found: dict[str, LiteralString] = {}
    for text in texts:
        _, *rest = _NAME.split(_HEADING.sub("", text))
        for name, statement in zip(rest[::2], rest[1::2], strict=True):
            if name in found:
                raise ValueError(f"two statements are named {name}")
            # Files of the package are literals as far as injection is concerned.
            found[name] = cast(LiteralString, statement.strip())
    return found


def query(name: str) -> LiteralString:
    """The statement of that name. Raises KeyError if there is none."""
    return statements()[name]


@cache
def roles() -> LiteralString:
    """The SQL that makes the roles where they are missing, and grants to them again."""
    return files(__name__).joinpath("roles.sql").read_text("utf-8")


@cache
def functions() -> tuple[FunctionFile, ...]:
    """All function files, in the order of `functions/order.txt`."""
    folder = files(__name__).joinpath("functions")
    names = folder.joinpath("order.txt").read_text("utf-8").split()
    return tuple(FunctionFile(name, folder.joinpath(f"{name}.sql").read_text("utf-8")) for name in names)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations in their order."""
    entries = ((entry, _MIGRATION.fullmatch(entry.name)) for entry in _folder("migrations"))
    found = [Migration(int(match[1]), match[2], entry.read_text("utf-8")) for entry, match in entries if match]
    return tuple(sorted(found, key=lambda migration: migration.version))


def _folder(name: str) -> Iterator[Traversable]:
    return (entry for entry in files(__name__).joinpath(name).iterdir() if entry.name.endswith(".sql"))
