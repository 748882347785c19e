"""Removes secrets from any text: what was remembered as a secret, and what looks like one.

What masking by value costs: a short value also occurs where it is not the secret ("on" is in "connection"). Masking it
there would spoil the text and, worse, the spoilt words would show the value. So values under 4 characters are not
masked by value (do not use one), values under 8 only where they stand alone, and longer ones everywhere.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

MASKED = "***"
REMEMBERED_LIMIT = 4096
_SHORTEST_MASKED = 4
_SHORTEST_MASKED_ANYWHERE = 8

# `${env:NAME}`, `${file:PATH}`; the escape `$${`; or a `${` that is neither.
REFERENCE = re.compile(r"\$\$\{|\$\{(env|file):([^{}]+)\}|\$\{[^}]*\}?")
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


def remember(secret: str) -> None:
    """From now on `mask` hides this value, also percent-encoded, escaped as JSON, and each of its lines."""
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
    """A copy for listings: of values under keys that look secret only references are shown, other values are masked."""
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
    for match in REFERENCE.finditer(value):
        if match[1]:
            kept += (MASKED if match.start() > end else "") + match[0]
            end = match.end()
    return kept + (MASKED if end < len(value) else "")
