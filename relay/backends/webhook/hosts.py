"""Hosts and ports of a URL: names as DNS can hold them, and addresses in their one ordinary form.

`inet_aton` also takes 0x7f.1, 017700000001 and 2130706433 for addresses. Such a text would look like a name to one
program and be an address to the next, so it is refused.
"""

import ipaddress
import re

from relay.backends.common.addresses import text_of
from relay.errors import ConfigError
from relay.hosts import ascii_name

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253


def ascii_host(host: str) -> str:
    """As DNS knows it: ASCII in lower case, without brackets and final dot. Raises ConfigError; repeats no host."""
    if host.startswith("["):
        return _ipv6(host.strip("[]"))
    try:
        name = ascii_name(host).lower().removesuffix(".")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    if "" in labels:
        raise ConfigError("has an invalid host name: a part between two dots is empty")
    if len(name) > _LONGEST_NAME or any(len(label) > 63 for label in labels):
        raise ConfigError("has an invalid host name: a part may have 63 characters, all of it 253")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ConfigError("has an invalid host name: use letters, digits and hyphens")
    return name


def port_of(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ConfigError("has an invalid port: give 1 to 65535")
    return int(text)


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ConfigError("has an invalid IPv4 address: write four decimal numbers without leading zeros") from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ConfigError("has an IPv6 address with a zone (%...): link-local addresses are never reached")
    try:
        return text_of(ipaddress.IPv6Address(text))
    except ValueError:
        raise ConfigError("has an invalid IPv6 address in its brackets") from None
