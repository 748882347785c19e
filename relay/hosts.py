"""Host names outside ASCII, as DNS knows them: IDNA 2008 (UTS 46, non-transitional), as browsers read them.

Python's codec `idna`, which sockets use for any other text, is IDNA 2003: it makes `strasse.de` of `straße.de`, which
is the domain of someone else. So no such name reaches a client library: it is converted, or refused, when it is read.
"""

import re
from urllib.parse import unquote

import idna

_AUTHORITY = re.compile(r"(?<=://)[^/?#]+")
_PART = re.compile("[^,;]+")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[]*)(.*)", re.DOTALL)
_REFUSED = (
    "has a host name that DNS cannot hold (IDNA 2008): a part is empty, too long or not of letters, digits and hyphens"
)


def ascii_name(name: str) -> str:
    """The name in ASCII; one that is ASCII already as it stands. Raises ValueError, which does not repeat the name."""
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True, transitional=False).decode()
    except (idna.IDNAError, UnicodeError):
        raise ValueError(_REFUSED) from None


def ascii_hosts(text: str) -> str:
    """`host:port` or a URL, or several with commas or semicolons between them: with the hosts in ASCII, all else as it
    stands. Raises ValueError, which does not repeat the text."""
    if text.isascii() and "%" not in text:
        return text
    if "://" in text:
        return _AUTHORITY.sub(lambda found: _of_authority(found[0]), text)
    return _of_list(text)


def ascii_conninfo(text: str) -> str:
    """The same of what libpq takes: a URL, or names and values. What libpq cannot read is left for it to refuse."""
    if text.isascii() and "%" not in text:
        return text
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        hosts = str(conninfo_to_dict(text).get("host") or "")
    except ProgrammingError:
        return text
    made = ",".join(host if host.startswith(("/", "@")) else ascii_name(host) for host in hosts.split(","))
    return text if made == hosts else make_conninfo(text, host=made)


def _of_authority(text: str) -> str:
    user, at, hosts = text.rpartition("@")
    return user + at + _of_list(hosts)


def _of_list(text: str) -> str:
    return _PART.sub(lambda found: _of_host(found[0]), text)


def _of_host(text: str) -> str:
    host, rest = _HOST.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches every text
    decoded = unquote(host) if "%" in host else host  # some clients decode it, and then ask for that name
    return text if decoded.isascii() else ascii_name(decoded) + rest
