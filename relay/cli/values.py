"""What people give as text, and how times are shown: ages, times, JSON, and a yes."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from relay.cli.base import confirm
from relay.errors import ConfigError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is not an age: give one such as 90s, 30m, 12h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def json_text(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """JSON as text. It is checked, and not built again: no number loses a digit."""
    if value is not None:
        try:
            json.loads(value, parse_int=str, parse_float=str)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(
                f"not JSON: {error}; write it in single quotes for the shell", param=param
            ) from None
    return value


def json_value(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    return json.loads(value) if json_text(ctx, param, value) is not None and value else None


def moment(_ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a time: give one such as 2030-01-31T12:00:00Z", param=param
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def time_text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def require_yes(what: str, yes: bool) -> None:
    """Asks at a terminal whether to do it; elsewhere it needs --yes. Raises ConfigError if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this {what}: give --yes to confirm")
    if not confirm(f"This {what}. Go on?"):
        raise ConfigError("nothing was changed")
