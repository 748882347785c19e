"""The secrets that this process knows, and where a text shows one of them, in whatever form it comes back.

A server can repeat a secret as it is, escaped (percent signs, JSON, HTML, Python; also one in the other), in base64 of
something that contains it (`user:password`), or in hexadecimal digits. Escapes are undone before the search, so every
mixture of them is found; base64 and digits are forms of their own.

What masking by value costs: a short value also occurs where it is not the secret ("on" is in "connection"). Masking it
there would spoil the text and, worse, the spoilt words would show the value. So values and forms under 4 characters
are not looked for (do not use one), those under 8 only where they stand alone, and longer ones everywhere.
"""

import base64
import html
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping

FORMS_LIMIT = 32_768
LONGEST_SPARE = 16_384
_SHORTEST = 4
_SHORTEST_ANYWHERE = 8
# An escape inside an escape inside an escape: nothing sensible goes deeper.
_MOST_ESCAPED = 3

_ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})++|(?:\\x[0-9A-Fa-f]{2})++|(?:\\u[0-9A-Fa-f]{4})++|\\[^ux]"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});",
    re.DOTALL,
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")

# form -> whether it is a piece of base64, whose neighbours then belong to it.
_forms: OrderedDict[str, bool] = OrderedDict()
# The first characters of a form -> the forms: a search costs no more for many secrets than for a long text.
_by_start: defaultdict[str, set[str]] = defaultdict(set)
# Whatever is logged is looked through, and a handler of signals may log, or a finalizer, in the middle of another
# search: with a plain lock the thread would wait for itself.
_lock = threading.RLock()


def remember(secret: str) -> None:
    """From now on `spans` finds this value and each of its lines, in every form."""
    # Libraries quote single lines of a key file in their errors. Short lines would be words.
    for value in (secret, *(line for line in secret.splitlines() if len(line) >= _SHORTEST_ANYWHERE)):
        in_a_query = value.replace(" ", "+")
        _add({value: False, in_a_query: False} | _encoded(value))


def remember_login(user: str, password: str) -> None:
    """Also what is sent for both together: by HTTP's Basic and by SASL's PLAIN."""
    if password and password != user:  # a password that is the user's name is no secret
        remember(password)
        _add(_encoded(f"{user}:{password}"))
        _add(_encoded(f"\0{user}\0{password}"))


def forget_all() -> None:
    """For tests."""
    with _lock:
        _forms.clear()
        _by_start.clear()


def spare() -> int:
    """How many characters at the end of a text that was cut may be the beginning of a secret."""
    with _lock:
        return min(LONGEST_SPARE, 6 * max(map(len, _forms), default=0))


def spans(text: str) -> list[tuple[int, int]]:
    """Where the text shows a secret, as (begin, end): in order, without overlaps."""
    found: list[tuple[int, int]] = []
    view, starts = text, None
    for _ in range(_MOST_ESCAPED + 1):
        for form, is_base64 in _candidates(view):
            for begin, end in _occurrences(view, form, is_base64):
                found.append((begin, end) if starts is None else (starts[begin], starts[end]))
        unescaped = _unescaped(view)
        if unescaped is None:
            break
        view, places = unescaped
        starts = places if starts is None else [starts[place] for place in places]
    return _merged(found)


def _add(forms: Mapping[str, bool]) -> None:
    with _lock:
        for form, is_base64 in forms.items():
            if len(form) >= _SHORTEST:
                _forms[form] = is_base64
                _forms.move_to_end(form)
                _by_start[form[:_SHORTEST]].add(form)
        while len(_forms) > FORMS_LIMIT:
            _forget(next(iter(_forms)))


def _encoded(value: str) -> dict[str, bool]:
    data = value.encode(errors="surrogatepass")
    return {data.hex(): False, data.hex().upper(): False} | dict.fromkeys(_base64_forms(data), True)


def _base64_forms(data: bytes) -> Iterator[str]:
    """The value alone; and what is the same in base64 of everything that contains it, at each of three places."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode().rstrip("=")
        for before in range(3):
            whole = encode(bytes(before) + data).decode()
            piece = whole[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
            if len(piece) >= _SHORTEST_ANYWHERE:
                yield piece


def _forget(form: str) -> None:
    alike = _by_start[form[:_SHORTEST]]
    alike.discard(form)
    if not alike:
        del _by_start[form[:_SHORTEST]]
    del _forms[form]  # last: what is found by its start is always there, also to the same thread, interrupted


def _candidates(text: str) -> list[tuple[str, bool]]:
    with _lock:
        if len(_by_start) < len(text):
            starts = {start for start in _by_start if start in text}
        else:
            starts = {text[at : at + _SHORTEST] for at in range(len(text) - _SHORTEST + 1)} & _by_start.keys()
        return [(form, _forms[form]) for start in starts for form in _by_start[start]]


def _occurrences(text: str, form: str, is_base64: bool) -> Iterator[tuple[int, int]]:
    at = 0
    while (begin := text.find(form, at)) >= 0:
        end = begin + len(form)
        if len(form) >= _SHORTEST_ANYWHERE or not (_in_a_word(text, begin - 1) or _in_a_word(text, end)):
            if is_base64:
                while begin > at and text[begin - 1] in _BASE64:
                    begin -= 1
                while end < len(text) and text[end] in _BASE64:
                    end += 1
            yield begin, end
        at = end


def _in_a_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")


def _unescaped(text: str) -> tuple[str, list[int]] | None:
    """The text with its escapes undone, and where each character of it was, and the end; None if it has no escapes."""
    parts: list[str] = []
    places: list[int] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        begin = match.start()
        parts.append(text[end:begin])
        places.extend(range(end, begin))
        for characters, width in _meant(match[0]):
            parts.append(characters)
            places.extend([begin] * len(characters))
            begin += width
        end = match.end()
    if not parts:
        return None
    parts.append(text[end:])
    places.extend(range(end, len(text) + 1))
    return "".join(parts), places


def _meant(escape: str) -> Iterator[tuple[str, int]]:
    """What an escape, or a row of them, stands for: each character with the width of its escape."""
    if escape[0] == "%":
        yield from _from_bytes(bytes.fromhex(escape.replace("%", "")), 3)
    elif escape[0] == "&":
        yield html.unescape(escape), len(escape)
    elif escape[1] == "x":
        yield from _from_bytes(bytes.fromhex(escape.replace("\\x", "")), 4)
    elif escape[1] == "u":
        units = bytes.fromhex(escape.replace("\\u", ""))
        for character in units.decode("utf-16-be", "replace"):
            yield character, 12 if ord(character) > 0xFFFF else 6
    else:
        yield _LETTERS.get(escape[1], escape[1]), 2


def _from_bytes(data: bytes, width: int) -> Iterator[tuple[str, int]]:
    for character in data.decode(errors="surrogateescape"):
        yield character, width * len(character.encode(errors="surrogateescape"))


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
