"""What an exception says, for people: where reasons, and the texts of our errors, are made from errors of others.

An error of PostgreSQL comes with the statement that met it: an excerpt (LINE), its text and the bodies of functions
around it (QUERY, CONTEXT). None of that is for an operator, and it may hold values of the application. So what is told
is the sentence, and what explains it if that is short. All of this is linear in the length of the text.
"""

import re

_MOST_CHARACTERS = 500
"""Of a detail and of a hint: what is longer is left out."""
# libpq writes "CONTEXT:  " in the language of the machine, but always with two spaces; "LINE 3: " with one.
_LABEL = re.compile(r"\n(?:([^\W\d]\w*+(?: \w++)?+):  |\w++ \d++: )")
_EXPLAINS = frozenset({"DETAIL", "HINT"})


def reason_of(error: BaseException) -> str:
    """Of an error of PostgreSQL in one line: what it says, its detail and its hint, but never the statement."""
    error = _of_driver(error)
    if not hasattr(error, "diag"):
        return str(error)
    parts = (" ".join(part.split()).rstrip(".") for part in _parts(error))
    return ". ".join(part for part in parts if part)


def sentence_of(error: BaseException) -> str:
    """As `reason_of`, without detail and hint: for where these would repeat values."""
    error = _of_driver(error)
    return " ".join((_parts(error)[0] if hasattr(error, "diag") else str(error)).split())


def _of_driver(error: BaseException) -> BaseException:
    """The error that is in one of SQLAlchemy, which shows the statement and its parameters; else the error itself."""
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) and hasattr(error, "statement") else error


def _parts(error: BaseException) -> list[str]:
    """Of psycopg and psycopg2: the sentence; then detail and hint, if they are there and short."""
    diagnosis = getattr(error, "diag", None)
    if sentence := getattr(diagnosis, "message_primary", None):
        explained = [getattr(diagnosis, "message_detail", None), getattr(diagnosis, "message_hint", None)]
    else:
        sentence, explained = _split(str(error))  # a session that is lost leaves a text only
    return [sentence, *(part for part in explained if part and len(part) <= _MOST_CHARACTERS)]


def _split(text: str) -> tuple[str, list[str | None]]:
    """The text before the first label, and the texts of the labels that explain it."""
    labels = list(_LABEL.finditer(text))
    ends = [*(label.start() for label in labels), len(text)]
    explained: list[str | None] = []
    for label, end in zip(labels, ends[1:], strict=True):
        if label[1] in _EXPLAINS:
            explained.append(text[label.end() : end])
        elif label[1]:
            break  # a statement follows, which may hold anything, also what looks like a label
    return text[: ends[0]], explained
