"""What the verbs share: their group, their options, their session, their output.

Results go to standard output, remarks about the work to standard error.
"""

import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from rich.console import Console, RenderableType
from rich.text import Text

import relay
from relay.errors import RelayError
from relay.local import env_file
from relay.masking import mask
from relay.operations.base import Connection, session
from relay.printable import printable, printable_json, printable_lines
from relay.settings import Settings, option, variables

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FAILED = 1
INTERRUPTED = 130
WIDTH_ELSEWHERE = 220
"""In columns, of what goes to no terminal."""

_HELP = """Moves messages between PostgreSQL and other systems, and loses none.

\b
The database is the first of these that is set:
  --postgres-url, RELAY_POSTGRES_URL, ./tide-data/env (which relay up writes)

\b
Exit codes of every verb:
  0    success
  1    an error, or (doctor, migrate --check, pipeline validate, demo) a check failed
  2    wrong usage
  130  interrupted with Ctrl-C

\b
Example:
  relay demo
"""

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="DataclassInstance")


class Failed(click.ClickException):
    """Ends a verb: one line on standard error and exit code 1."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        context = click.get_current_context(silent=True)
        name = context.command_path if context else "relay"
        click.echo(printable(f"{name}: {mask(self.message)}"), file=file or sys.stderr)


class Verb(click.Command):
    """A verb: our errors become one line and an exit code, Ctrl-C becomes 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RelayError as error:
            failure = Failed(str(error))
            failure.show()
            ctx.exit(failure.exit_code)
        except click.Abort:
            ctx.exit(INTERRUPTED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@contextmanager
def _printable_usage() -> Iterator[None]:
    """What click says about wrong usage repeats what was given."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable_lines(mask(error.message))  # type: ignore[misc]
        raise


class Verbs(click.Group):
    """A group of verbs, in their order. `lazy`: verb -> "module:command", imported when the verb is used."""

    command_class = Verb

    def __init__(self, name: str, help_text: str = _HELP, lazy: Mapping[str, str] | None = None) -> None:
        context = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
        super().__init__(name, help=help_text, context_settings=context)
        self._lazy = lazy or {}
        if name == "relay":
            click.version_option(relay.__version__, prog_name="relay")(self)

    def main(self, *args: Any, **extra: Any) -> Any:
        sys.excepthook = _unexpected
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _printable_usage():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _printable_usage():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and not name.startswith("-") and name not in known:
            near = difflib.get_close_matches(name[:80], known, n=1)
            guess = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            ctx.fail(f"there is no command {name!r}; {guess}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [*self._lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._lazy:
            module, _, attribute = self._lazy[cmd_name].partition(":")
            return cast(click.Command, getattr(importlib.import_module(module), attribute))
        return super().get_command(ctx, cmd_name)


# Options and settings --------------------------------------------------------------------------------------------


def postgres_option(command: F) -> F:
    text = f"The database.  [{variables('postgres_url')[0]}]"
    return click.option(option("postgres_url"), "postgres_url", metavar="URL", help=text)(command)


def broker_option(command: F) -> F:
    text = f"The queue between scheduler and workers.  [{variables('broker_url')[0]}]"
    return click.option(option("broker_url"), "broker_url", metavar="URL", help=text)(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def library_option(command: F) -> F:
    text = "The workers have the client library, which does not need to be installed here."
    return click.option("--library-on-workers", is_flag=True, help=text)(command)


def load_settings(**given: Any) -> Settings:
    """Settings from options and environment; if neither names a database, from what `relay up` runs here.

    Raises ConfigError.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "postgres_url" not in given and not _in_environment("postgres_url"):
        kept = env_file.read()
        given = {name: value for name, value in kept.items() if not _in_environment(name)} | given
        settings = Settings.load(**given)
        if kept and settings.log_format != "json":
            tell(f"using the database of {env_file.DEFAULT}: {mask(settings.postgres_url)}")
        return settings
    return Settings.load(**given)


def _in_environment(field: str) -> bool:
    return any(os.environ.get(name) for name in variables(field))


# The database ----------------------------------------------------------------------------------------------------


@contextmanager
def database(settings: Settings, verb: str) -> Iterator[Connection]:
    """A session in autocommit for one verb. Raises RelayError, also for its body."""
    with session(settings, f"tide-relay {verb}") as connection:
        yield connection


# Speaking --------------------------------------------------------------------------------------------------------


class _Output(Console):
    """Each string is a value: not markup, in one line, and without anything that a terminal would obey."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})


def output() -> Console:
    """Standard output, for tables: as wide as they need unless it is a terminal."""
    return _Output(soft_wrap=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH_ELSEWHERE)


def shown(value: str, style: str = "") -> Text:
    """A value with a style."""
    return Text(printable(value), style)


def shown_lines(values: Iterable[str]) -> Text:
    return Text("\n").join([shown(value) for value in values])


def say(line: str, *, err: bool = False) -> None:
    """One line of a result."""
    click.echo(printable(line), err=err)


def tell(line: str) -> None:
    """One line about the work, on standard error."""
    click.echo(click.style(printable(line), dim=True), err=True)


def confirm(question: str) -> bool:
    return click.confirm(printable(question), err=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    print_json_text(json.dumps(value, default=_as_json, ensure_ascii=False, indent=indent))


def print_json_text(text: str, *, end: bool = True) -> None:
    """JSON that is one already. `end`: a line break after it."""
    click.echo(printable_json(text), nl=end)


def print_list(found: Sequence[R], table: Callable[[Sequence[R]], RenderableType], *, as_json: bool, none: str) -> None:
    """The end of a verb that lists results: JSON for programs, a table, or a remark if there is nothing."""
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        output().print(table(found))
    else:
        tell(none)


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python would print the texts of others as they are."""
    text = mask("".join(traceback.format_exception(kind, error, trace)), most_characters=32_768)
    click.echo(printable_lines(text), err=True, nl=False)


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
