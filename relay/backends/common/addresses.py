"""Which addresses a receiver that a pipeline names may have.

The tables are the special-purpose registries of IANA for IPv4 and IPv6 (RFC 6890 and its successors), and what clouds
document for their metadata and host services. Not Python's `ipaddress`, whose answers differ by version.
"""

import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from relay.errors import ConfigError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23",  # of nearly all; AWS ECS, EKS; Tencent
        "168.63.129.16", "100.100.100.200", "192.0.0.192",  # Azure's wire server, Alibaba, Oracle
        "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1",  # Google, Oracle, Scaleway, Linode
    )
)  # fmt: skip


def _networks(text: str) -> tuple[_Network, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


_NEVER = _networks("0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 255.255.255.255/32 ::/128 fe80::/10 ff00::/8 fd00:ec2::/32")
"""This network, link-local, multicast, broadcast, and the services of AWS."""

_NOT_GLOBAL_4 = _networks(
    "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16"
    " 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4"
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_GLOBAL_6 = _networks("2001::/23 2001:db8::/32 2002::/16 3fff::/20")

_NAT64, _NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48")
_MAPPED, _SIX_TO_FOUR = ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_LOW_32 = (_NAT64, _MAPPED, *map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96")))
"""Translated, mapped, compatible, and translated by the older rule."""
_STANDS_FOR_IPV4 = (_NAT64, _MAPPED, _SIX_TO_FOUR, _TEREDO)
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


def may_reach(address: IPAddress, *, allow_private: bool) -> bool:
    """Whether a receiver may be there. Private, loopback and reserved addresses only if allowed; never those of a link,
    where clouds hand out credentials, of their other services, of many, and of none. IPv4 in IPv6 is judged itself."""
    if address in METADATA or _in(address, _NEVER):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return allow_private or not _in(address, _NOT_GLOBAL_4)
    if any(ipv4_at(address, length) in METADATA for length in (32, 40, 48, 56, 64, 96)):
        return False  # behind a translator whose prefix is not known
    if not all(may_reach(one, allow_private=allow_private) for one in embedded(address)):
        return False
    if allow_private or _in(address, _STANDS_FOR_IPV4):
        return True
    return address in _GLOBAL_UNICAST and not _in(address, _NOT_GLOBAL_6)


def ipv4_at(address: ipaddress.IPv6Address, prefix_length: int) -> ipaddress.IPv4Address:
    """What a translator with a prefix of this length reads: RFC 6052, 2.2. Bits 64 to 71 are no part of it."""
    bits = int(address)
    if prefix_length < 96:
        bits = bits >> 64 << 56 | bits & (1 << 56) - 1
        bits >>= 88 - prefix_length
    return ipaddress.IPv4Address(bits & 0xFFFFFFFF)


def embedded(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that it can stand for."""
    bits = int(address)
    found: list[ipaddress.IPv4Address] = []
    if _in(address, _LOW_32) or bits >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(ipv4_at(address, 96))
    elif address in _NAT64_LOCAL:  # of any length that fits
        found += [ipv4_at(address, length) for length in (48, 56, 64, 96)]
    elif address in _SIX_TO_FOUR:
        found.append(ipaddress.IPv4Address(bits >> 80 & 0xFFFFFFFF))
    elif address in _TEREDO:
        found += [ipv4_at(address, 32), ipaddress.IPv4Address(~bits & 0xFFFFFFFF)]
    # In ::1, and where another length was meant.
    is_mapped = address in _MAPPED or address in _NAT64 or address in _SIX_TO_FOUR
    return [one for one in found if is_mapped or one not in _THIS_NETWORK]


class ForbiddenAddress(Exception):
    """The name leads to addresses that a receiver may not have, and to no other."""


def allowed(host: str, found: Sequence[str], *, allow_private: bool) -> list[str]:
    """Those of a name's addresses that may be connected to. Raises ForbiddenAddress if none of them may."""
    may = [one for one in found if may_reach(address_of(one), allow_private=allow_private)]
    if found and not may:
        would_help = any(may_reach(address_of(one), allow_private=True) for one in found)
        hint = "; if it is meant, set allow_private_network" if would_help and not allow_private else ""
        raise ForbiddenAddress(f"{host} leads to {', '.join(found)}, which is not a public address{hint}")
    return may


def literal(host: str) -> str | None:
    """The address that a host of a URL is, as the system's resolver reads it: also 127.1, 0x7f000001 and localhost."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"  # RFC 6761: no resolver may answer anything else than loopback
    with suppress(ValueError):
        return text_of(address_of(name))
    if _NUMBERS.fullmatch(name):
        with suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(name))
    return None


def check_literal(host: str, *, allow_private: bool) -> None:
    """Raises ValueError if the host is an address that no receiver may have: then no process would connect to it."""
    if (address := literal(host)) is not None:
        try:
            allowed(host, [address], allow_private=allow_private)
        except ForbiddenAddress as error:
            hint = str(error).partition("; ")[2] or "no request may go there: name the host of the receiver"
            raise ValueError(f"{host} is not a public address; {hint}") from None


def check_no_cloud_service(url: str) -> None:
    """Raises ValueError if the host of a URL is, literally, where no service of a user can be."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return  # the client will say so
    address = literal(host)
    if address is not None and not may_reach(address_of(address), allow_private=True):
        raise ValueError(f"{host} is an address where no such service can be; name the host of the service")


def _in(address: IPAddress, networks: tuple[_Network, ...]) -> bool:
    return any(address in network for network in networks)


def text_of(address: IPAddress) -> str:
    """One text for each address, whatever the Python: since 3.13 `str` writes the IPv4 address in ::ffff:0:0/96 with
    dots."""
    if address not in _MAPPED:
        return str(address)
    high, low = divmod(int(address) & 0xFFFFFFFF, 1 << 16)
    return f"::ffff:{high:x}:{low:x}{''.join(str(address).partition('%')[1:])}"


def address_of(text: str) -> IPAddress:
    """Without the zone of a link-local address. Raises ValueError."""
    return ipaddress.ip_address(text.partition("%")[0])


def look_up(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a name. Raises OSError, and TimeoutError when that takes longer than `seconds`."""
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()
    ask(host, port, answers.put)
    try:
        answer = answers.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError(f"no answer from DNS about {host}") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def ask(host: str, port: int, tell: Callable[[list[str] | OSError], None]) -> None:
    """Calls `tell` with the addresses of a name: at once for an address, else later and in another thread."""
    try:
        return tell([text_of(ipaddress.ip_address(host))])
    except ValueError:
        pass

    def work() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            tell(list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)))
        except OSError as error:
            tell(error)
        except UnicodeError as error:  # from the codec that getaddrinfo uses for names
            tell(OSError(f"no name that DNS could hold: {error}"))

    # The system's resolver has no time limit that we could set: a thread may be left to it, for as long as it takes.
    threading.Thread(target=work, name="dns", daemon=True).start()
    return None


def refuse_cloud_services(url: str, where: str, seconds: float) -> None:
    """Raises ConfigError if the URL leads to where no service of a user can be, such as a cloud's metadata.

    For clients that connect by themselves: what the name leads to later is not looked at.
    """
    parts = urlsplit(url)
    try:
        found = look_up(parts.hostname or "", parts.port or 443, seconds)
    except (OSError, ValueError):
        return  # the client will say so
    if bad := [one for one in found if not may_reach(address_of(one), allow_private=True)]:
        raise ConfigError(f"{where}: {parts.hostname} leads to {', '.join(bad)}, where no such service can be")
