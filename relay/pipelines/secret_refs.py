"""References to secrets in pipeline configuration, resolved where they are used.

`${env:NAME}` and `${file:PATH}` may stand anywhere in a string of the configuration, several in one; `$${` is a plain
`${`. The process that uses them resolves them, so that the database holds references only. Every value that was
resolved is remembered, so that `relay.masking.mask` removes it from any text.
"""

import os
import re
import stat
from typing import Any

from relay.errors import ConfigError
from relay.known_secrets import remember
from relay.masking import REFERENCE, remember_config

FILE_LIMIT_BYTES = 64 * 1024


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """A copy with every reference replaced by its value.

    Raises ConfigError naming the key and the reference, never a value, if a variable or a file is missing or cannot
    be used, or if a `${` is neither a reference nor escaped.
    """
    resolved = {key: _resolved(value, key) for key, value in config.items()}
    remember_config(resolved)
    return resolved


def _resolved(value: Any, path: str) -> Any:
    match value:
        case str():
            return REFERENCE.sub(lambda match: _replacement(match, path), value)
        case dict():
            return {key: _resolved(inner, f"{path}.{key}") for key, inner in value.items()}
        case list():
            return [_resolved(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
        case _:
            return value


def _replacement(match: re.Match[str], path: str) -> str:
    if match[0] == "$${":
        return "${"
    reference, kind, name = match[0], match[1], match[2]
    if kind is None:
        # What follows the `${` is not quoted: it may be a password that contains one.
        raise ConfigError(
            f"{path}: '${{' is not a reference: write ${{env:NAME}} or ${{file:PATH}}, or '$${{' for a plain '${{'"
        )
    value = _from_env(name, reference, path) if kind == "env" else _from_file(name, reference, path)
    remember(value)
    return value


def _from_env(name: str, reference: str, path: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(f"{path}: {reference}: this environment variable is not set in this process") from None


def _from_file(name: str, reference: str, path: str) -> str:
    try:
        # Not blocking, because opening a named pipe without a writer would wait indefinitely.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: {reference}: not a file")
            content = file.read(FILE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{path}: {reference}: cannot be read in this process: {reason}") from None
    if len(content) > FILE_LIMIT_BYTES:
        raise ConfigError(f"{path}: {reference}: larger than {FILE_LIMIT_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: {reference}: not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")
