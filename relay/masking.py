"""Secrets in pipeline configuration: references instead of values, and no value in any text.

`${env:NAME}` and `${file:PATH}` may stand anywhere in a string of the configuration, several in one; `$${` is a plain
`${`. They are resolved in the process that uses them, so that the database holds references only.

Every value that was resolved is remembered, and `mask` takes it out of a text again. What masking by value costs:
a short value also occurs where it is not the secret ("on" is in "connection"), which would spoil the text and, worse,
show by the spoilt words what the value is. So values under 4 characters are not masked by value (nobody should use
one), values under 8 only where they stand alone, and longer ones wherever they occur.
"""

import json
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from relay.errors import ConfigError

MASKED = "***"
FILE_LIMIT_BYTES = 64 * 1024
REMEMBERED_LIMIT = 4096
_SHORTEST_MASKED = 4
_SHORTEST_MASKED_ANYWHERE = 8

_REFERENCE = re.compile(r"\$\$\{|\$\{(env|file):([^{}]+)\}|\$\{[^}]*\}?")
_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|api_?key|access_?key|private_?key|nkey|seed|cred(ential)?s?$|jwt|authorization|\bpwd\b"
)
_PATH_KEY = re.compile(r"_(file|path)$")

_URL_PASSWORD = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@?#'\"]*):[^\s/]*@")
_NATS_TOKEN = re.compile(r"\b(nats|tls)://[^\s:/@,'\"]+@")
_PAIR = re.compile(
    r"(?i)\b((?:ssl)?password|passwd|pwd|secret|access_token|token|api_key)(\s*=\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&'\",;)}\]]+)"
)

_remembered: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """A copy with every reference replaced by its value.

    Raises ConfigError naming the key and the reference, never a value, if a variable or a file is missing or cannot
    be used, or if a `${` is neither a reference nor escaped.
    """
    return {key: _resolved(value, key) for key, value in config.items()}


def _resolved(value: Any, path: str) -> Any:
    match value:
        case str():
            return _REFERENCE.sub(lambda match: _replacement(match, path), value)
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
            f"{path}: a '${{' that is no reference: write ${{env:NAME}} or ${{file:PATH}}, or '$${{' for a plain '${{'"
        )
    value = _from_env(name, reference, path) if kind == "env" else _from_file(name, reference, path)
    remember(value)
    return value


def _from_env(name: str, reference: str, path: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(f"{path}: {reference}: there is no such environment variable in this process") from None


def _from_file(name: str, reference: str, path: str) -> str:
    try:
        # Not blocking, because opening a named pipe without a writer would wait for ever.
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


def remember(secret: str) -> None:
    """From now on `mask` hides this value, also percent-encoded, escaped as JSON, or one line of it."""
    with _lock:
        for form in _forms(secret):
            if len(form) >= _SHORTEST_MASKED:
                _remembered[form] = None
                _remembered.move_to_end(form)
        while len(_remembered) > REMEMBERED_LIMIT:
            _remembered.popitem(last=False)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    # Libraries quote single lines of a key file in their errors. Short lines would be words.
    yield from (line for line in secret.splitlines() if len(line) >= _SHORTEST_MASKED_ANYWHERE)


def mask(text: str) -> str:
    """The text without any remembered secret, password in a URL, or `password=` pair."""
    with _lock:
        found = [secret for secret in _remembered if secret in text]
    # The longest first: one secret may be a part of another.
    for secret in sorted(found, key=len, reverse=True):
        if len(secret) >= _SHORTEST_MASKED_ANYWHERE:
            text = text.replace(secret, MASKED)
        else:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASKED, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASKED}@", text)
        text = _NATS_TOKEN.sub(rf"\1://{MASKED}@", text)
    if "=" in text:
        text = _PAIR.sub(rf"\1\2{MASKED}", text)
    return text


def mask_config(config: dict[str, Any]) -> dict[str, Any]:
    """A copy for listings: under keys that look secret only references are shown, everything else is masked."""
    return {key: _masked_value(value, _is_secret_key(key)) for key, value in config.items()}


def _masked_value(value: Any, hidden: bool) -> Any:
    match value:
        case dict():
            return {key: _masked_value(inner, hidden or _is_secret_key(key)) for key, inner in value.items()}
        case list():
            return [_masked_value(inner, hidden) for inner in value]
        case str():
            return _keep_references(value) if hidden else mask(value)
        case int() | float() if hidden and not isinstance(value, bool):
            return MASKED
        case _:
            return value


def _is_secret_key(key: str) -> bool:
    words = key.lower().replace("-", "_")
    return bool(_SECRET_KEY.search(words)) and not _PATH_KEY.search(words)


def _keep_references(value: str) -> str:
    kept, end = "", 0
    for match in _REFERENCE.finditer(value):
        if match[1]:
            kept += (MASKED if match.start() > end else "") + match[0]
            end = match.end()
    return kept + (MASKED if end < len(value) else "")
