"""How the values of settings are written: text of an option or a variable, as what a setting holds."""

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from relay import reach
from relay.hosts import ascii_conninfo, ascii_hosts

SHORTEST_TOKEN = 16

_UNITS_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_ADDRESS = re.compile(r"(\[[\w:.%]+\]|[^\s:\[\]]*):([0-9]+)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")


def parse_duration_seconds(value: object) -> object:
    """`500ms`, `10s`, `1m`, `1h`, or a number of seconds, as a number of seconds.

    Returns anything that is not text unchanged, for pydantic to check. Raises ValueError.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if not match:
        raise ValueError("give a duration such as 500ms, 10s or 1m, or a number of seconds")
    return float(match[1]) * _UNITS_SECONDS[match[2] or "s"]


def parse_address(value: str) -> tuple[str, int]:
    """`host:port` as (host, port); an IPv6 host is in brackets, an empty one means every interface.

    Port 0 lets the system choose. Raises ValueError.
    """
    match = _ADDRESS.fullmatch(value)
    if not match or int(match[2]) > 65535:
        raise ValueError("give host:port, such as 0.0.0.0:9090 or [::]:9090")
    return match[1].strip("[]"), int(match[2])


def _without_driver(url: object) -> object:
    """A URL of SQLAlchemy as one of libpq."""
    return re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url) if isinstance(url, str) else url


def _checked_address(value: str) -> str:
    parse_address(value)
    return value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _level(value: object) -> object:
    # pgtrickle-relay names two levels differently.
    lowered = _lower(value)
    return {"warn": "warning", "trace": "debug"}.get(lowered, lowered) if isinstance(lowered, str) else lowered


def _listed(value: object) -> object:
    """What is between commas; `none` is an empty list, because an empty variable counts as not set."""
    if not isinstance(value, str):
        return value
    return () if value.strip().lower() == "none" else tuple(part.strip() for part in value.split(","))


def _checked_prefixes(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"[A-Za-z_]\w*", prefix, re.ASCII) for prefix in prefixes):
        raise ValueError("give prefixes of variables with commas between them, such as TIDE_SECRET_,SHOP_; or none")
    if any(prefix.upper().startswith(reach.NEVER_VARIABLES) for prefix in prefixes):
        raise ValueError("variables that begin with RELAY_ are never for pipelines; choose another prefix")
    return prefixes


def _checked_folders(folders: tuple[str, ...]) -> tuple[str, ...]:
    if not all(os.path.isabs(folder) and ".." not in folder.split("/") for folder in folders):
        raise ValueError("give absolute paths of folders with commas between them, without '..'; or none")
    return tuple(os.path.normpath(folder) for folder in folders)


def _checked_tokens(tokens: tuple[str, ...]) -> tuple[str, ...]:
    if not all(len(token) >= SHORTEST_TOKEN and token.isascii() and token.isprintable() for token in tokens):
        raise ValueError(f"give tokens of {SHORTEST_TOKEN} characters at least, with commas between them")
    return tokens


def _checked_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"(\*\.)?[A-Za-z0-9_.:-]+", host) for host in hosts):
        raise ValueError("give hosts with commas between them, such as api.example.com,*.example.org; or none")
    return hosts


def _checked_modules(modules: tuple[str, ...]) -> tuple[str, ...]:
    if not all(all(part.isidentifier() for part in module.split(".")) for module in modules):
        raise ValueError("give names of Python modules with commas between them, such as shop.jobs; or none")
    return modules


def _checked_queues(queues: tuple[str, ...]) -> tuple[str, ...]:
    if queues != ("*",) and not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}", queue) for queue in queues):
        raise ValueError("give names of job queues with commas between them, or * for all; or none")
    return queues


Seconds = Annotated[float, BeforeValidator(parse_duration_seconds), Field(gt=0, le=86_400, allow_inf_nan=False)]
Prefixes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_prefixes)]
Folders = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_folders)]
Tokens = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_tokens)]
Modules = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_modules)]
QueueNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_queues)]
HostNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_hosts)]
Address = Annotated[str, BeforeValidator(lambda value: _checked_address(value) if isinstance(value, str) else value)]
PostgresUrl = Annotated[str, BeforeValidator(_without_driver), Field(min_length=1), AfterValidator(ascii_conninfo)]
BrokerUrl = Annotated[str, AfterValidator(ascii_hosts)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_level)]
