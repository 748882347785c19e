"""References to secrets in pipeline configuration, resolved where they are used.

`${env:NAME}` and `${file:PATH}` may stand anywhere in a string of the configuration, several in one; `$${` is a plain
`${`. The process that uses them resolves them, so that the database holds references only. Every value that was
resolved is remembered, so that `relay.masking.mask` removes it from any text.

Which variables and files may be named is for the operator of that process to say: `relay.reach`.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from relay import reach
from relay.errors import ConfigError
from relay.known_secrets import remember
from relay.masking import REFERENCE, remember_config
from relay.reach import read_secret_file
from relay.wire.byte_order_mark import text_of

FILE_LIMIT_BYTES = 64 * 1024

_STAND_IN = "${env:TIDE_SECRET_STAND_IN}"
# As shells and Kubernetes name them. An operator may name a prefix of another form, but not these characters.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """A copy with every reference replaced by its value.

    Raises ConfigError naming the key and the reference, never a value, if a variable or a file is missing, cannot be
    used or is not for pipelines, or if a `${` is neither a reference nor escaped.
    """
    resolved = {key: _mapped(value, key, _replacement) for key, value in config.items()}
    remember_config(resolved)
    return resolved


def checked(config: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """A copy for checking, with a stand-in for every reference that no process would resolve, wherever it runs.

    What is wrong with each is added to `problems`. The stand-in keeps the rest of the string from being judged by what
    is wrong in it.
    """

    def judged(match: re.Match[str], path: str) -> str:
        if match[0] == "$${":
            return match[0]
        try:
            _check_form(match, path)
        except ConfigError as error:
            problems.append(str(error))
            return _STAND_IN
        return match[0]

    return {key: _mapped(value, key, judged) for key, value in config.items()}


def _mapped(value: Any, path: str, replace: Callable[[re.Match[str], str], str]) -> Any:
    match value:
        case str():
            return REFERENCE.sub(lambda match: replace(match, path), value)
        case dict():
            return {key: _mapped(inner, f"{path}.{key}", replace) for key, inner in value.items()}
        case list():
            return [_mapped(inner, f"{path}[{index}]", replace) for index, inner in enumerate(value)]
        case _:
            return value


def _check_form(match: re.Match[str], path: str) -> None:
    """Raises ConfigError for what is wrong with a reference on every machine."""
    kind, name = match[1], match[2]
    if kind is None:
        # What follows the `${` is not quoted: it may be a password that contains one.
        raise ConfigError(f"{path}: {_what_is_wrong(match[0])}")
    with _naming(f"{path}: {match[0]}"):
        if kind == "file":
            reach.check_plain_path(name)
        elif not _VARIABLE.fullmatch(name):
            raise ConfigError("is no name of a variable: it has letters, digits and _, such as TIDE_SECRET_NAME")
        else:
            reach.check_not_ours(name)


def _what_is_wrong(text: str) -> str:
    if "${" in text[2:]:
        problem = "a '${' stands inside another, and references cannot be nested"
    elif not text.endswith("}"):
        problem = "a '${' is not closed with '}'"
    else:
        problem = "'${' is not a reference"
    return f"{problem}: write ${{env:TIDE_SECRET_NAME}} or ${{file:PATH}}, or '$${{' for a plain '${{'"


def _replacement(match: re.Match[str], path: str) -> str:
    if match[0] == "$${":
        return "${"
    reference, kind, name = match[0], match[1], match[2]
    if kind is None:
        _check_form(match, path)
    value = _from_env(name, reference, path) if kind == "env" else _from_file(name, reference, path)
    remember(value)
    return value


def _from_env(name: str, reference: str, path: str) -> str:
    with _naming(f"{path}: {reference}"):
        reach.check_variable(name)
    try:
        return _without_line_end(os.environ[name])
    except KeyError:
        raise ConfigError(f"{path}: {reference}: this environment variable is not set in this process") from None


def _from_file(name: str, reference: str, path: str) -> str:
    with _naming(f"{path}: {reference}"):
        content = read_secret_file(name, FILE_LIMIT_BYTES)
    try:
        text = text_of(content)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: {reference}: not UTF-8 text") from None
    return _without_line_end(text)


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
