"""Bounds any text that is for people, and removes secrets from it: what is known as one, and what looks like one.

Every error (`relay.errors`), every `Failure` and every value of a log passes through `mask` when it is made, so no
foreign text can become long or show a secret, whatever made it. All of this is linear in the length of the text, and
the text is cut first.
"""

import re
from typing import Any
from urllib.parse import unquote

from relay import known_secrets
from relay.known_secrets import remember, remember_login

MASKED = "***"
MOST_CHARACTERS = 4096
"""Of a reason, of an error and of one value in a log."""

# `${env:NAME}`, `${file:PATH}`; the escape `$${`; or a `${` that is neither.
REFERENCE = re.compile(r"\$\$\{|\$\{(env|file):([^{}]+)\}|\$\{[^}]*\}?")
_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|api_?key|access_?key|private_?key|nkey|seed|cred(ential)?s?$|jwt|authorization|\bpwd\b"
)
_PATH_KEY = re.compile(r"_(file|path)$")

# Each begins at something fixed and never goes back over what it has read: linear.
_URL_PASSWORD = re.compile(r"(?<=[a-zA-Z0-9+.-])(://[^\s:/@?#'\"]*+):([^\s/]*)@")
_NATS_TOKEN = re.compile(r"\b(nats|tls)://[^\s:/@,'\"]++@")
# A value whose quotes are not closed, because someone has cut it, goes to the end.
_QUOTED = r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)"
_PAIR = re.compile(
    r"(?is)(password|passwd|pwd|secret|token|api_?key|signature)"
    rf"(\s*+=\s*+|[\"']\s*+[:=]\s*+(?=[\"']))({_QUOTED}|[^\s&'\",;)}}\]]++)"
)
_AUTHORIZATION = re.compile(
    r"(?i)((?:authorization|cookie|x-amz-security-token|x-api-key)[\"']?\s*+[:=,]\s*+[\[\"']*+)"
    r"((?:\w++ )?[^\s\"',\]]++)"
)


def mask(text: str, *, most_characters: int | None = MOST_CHARACTERS) -> str:
    """The text, cut, without any known secret, password in a URL, `password=` pair or authorization.

    None: of any length, for what is bounded already and must stay whole.
    """
    if most_characters is None or len(text) <= most_characters:
        return _masked(text)
    # What is read beyond the cut, so that no secret is cut in half: it would not be found.
    spare = known_secrets.spare()
    note = f" ... ({len(text)} characters)"
    kept = most_characters - len(note)
    shown = _masked(text[: most_characters + spare])
    if len(text) > most_characters + spare:
        shown = shown[: max(0, len(shown) - spare)]
    return shown[:kept] + note


def _masked(text: str) -> str:
    if spans := known_secrets.spans(text):
        kept, at = [], 0
        for begin, end in spans:
            kept += [text[at:begin], MASKED]
            at = end
        text = "".join((*kept, text[at:]))
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASKED}@", text)
        text = _NATS_TOKEN.sub(rf"\1://{MASKED}@", text)
    text = _PAIR.sub(rf"\1\2{MASKED}", text)
    return _AUTHORIZATION.sub(rf"\1{MASKED}", text)


def remember_config(config: dict[str, Any]) -> None:
    """Knows from now on what a configuration, its references resolved, holds under keys that look secret."""
    user = next((config[key] for key in ("username", "user", "login") if isinstance(config.get(key), str)), None)
    for key, value in config.items():
        match value:
            case dict():
                remember_config(value)
            case list():
                remember_config({f"{key}[{index}]": inner for index, inner in enumerate(value)})
            case str() if "://" in value:
                remember_url(value)
            case str() if value and _is_secret_key(key):
                if user is None:
                    remember(value)
                else:
                    remember_login(user, value)


def remember_url(text: str) -> None:
    """Knows from now on the passwords in a URL, or in several, or in a connection string of libpq."""
    for match in _URL_PASSWORD.finditer(text):
        remember_login(unquote(match[1].removeprefix("://")), unquote(match[2]))
    for match in _PAIR.finditer(text):
        remember(match[3].strip("'\""))


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
            return _keep_references(value) if hidden else mask(value, most_characters=None)
        case int() | float() if hidden and not isinstance(value, bool):
            return MASKED
        case _:
            return value


def _is_secret_key(key: str) -> bool:
    words = key.lower().replace("-", "_")
    return bool(_SECRET_KEY.search(words)) and not _PATH_KEY.search(words)


def _keep_references(value: str) -> str:
    kept, end = [], 0
    for match in REFERENCE.finditer(value):
        if match[1]:
            kept += [MASKED if match.start() > end else "", match[0]]
            end = match.end()
    return "".join((*kept, MASKED if end < len(value) else ""))
