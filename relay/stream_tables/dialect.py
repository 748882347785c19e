"""SQL text to trees and back: the one place where text is read and made.

The parser knows no function but the few that the analysis reasons about. One that "normalises" functions changes
meaning: `strpos` became `position`, and a quoted `"left"` lost its quotes.
"""

from typing import Any, ClassVar

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.parsers.postgres import PostgresParser

from relay.stream_tables.plan import Unsupported

KNOWN = ("COUNT", "SUM", "AVG", "MIN", "MAX", "COALESCE")
SYNTAX = ("CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")
"""Functions whose arguments PostgreSQL writes with words between them."""


class PostgreSQL(Postgres):
    """PostgreSQL, in which a function is what it is called."""

    class Parser(PostgresParser):
        FUNCTIONS: ClassVar = {name: PostgresParser.FUNCTIONS[name] for name in KNOWN}
        FUNCTION_PARSERS: ClassVar = {name: PostgresParser.FUNCTION_PARSERS[name] for name in SYNTAX}

        def _parse_function_call(
            self,
            functions: Any = None,
            anonymous: bool = False,
            optional_parens: bool = True,
            any_token: bool = False,
        ) -> exp.Expr | None:
            # A name in quotes is a function as any other: "substring"(x, 1) is not written with FROM.
            quoted = self._curr.token_type == TokenType.IDENTIFIER
            return super()._parse_function_call(functions, anonymous or quoted, optional_parens, any_token)

        def _parse_is(self, this: exp.Expr | None) -> exp.Expr | None:
            # As it is written: IS NOT TRUE is no NOT of IS TRUE, and UNKNOWN is another word than NULL.
            unknown = "UNKNOWN" in [token.text.upper() for token in self._tokens[self._index : self._index + 2]]
            found = super()._parse_is(this)
            if isinstance(found, exp.Not) and isinstance(found.this, exp.Is):
                found = found.this
                found.set("negate", True)
            if unknown and isinstance(found, exp.Is):
                found.set("expression", exp.Var(this="UNKNOWN"))
            return found


def parse(text: str) -> exp.Expr:
    """One statement. Raises Unsupported."""
    try:
        return sqlglot.parse_one(text, dialect=PostgreSQL)
    except SqlglotError as error:
        raise Unsupported(f"its text was not understood: {str(error).splitlines()[0]}") from error


def parse_table(name: str) -> exp.Table:
    """A table by its qualified, quoted name."""
    return exp.to_table(name, dialect=PostgreSQL)


def write(tree: exp.Expr) -> str:
    """The text of a tree. Raises Unsupported for one with a semicolon, which would not be seen to be one statement."""
    text = tree.sql(dialect=PostgreSQL, normalize_functions=False)
    if ";" in text:
        raise Unsupported("a name or a text in the query contains a semicolon")
    return text
