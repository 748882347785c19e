"""How much is taken on at a time: requests a second of one sender, what is still arriving, what waits for its commit.

What is arriving costs an attacker nothing and needs no secret, so none of it has a right to its place: when room is
scarce, the slowest of the greediest is dropped (`worst_first`). What has arrived and is genuine keeps its place, and
there no inbox gets all of the room.
"""

import ipaddress
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

MOST_REQUESTS = 1024
MOST_BYTES = 64 * 1024 * 1024
MOST_ARRIVING_BYTES = 64 * 1024 * 1024
SHARE = 3
"""One inbox may hold so many times what is free: there is always room for another one."""
DROPPED_AT_ONCE = 1 / 16
"""Of all room. Choosing looks at everything that is held, so it is not done for each newcomer."""


class RateLimit:
    """So many requests a second, and as many at once after a pause (at least one). One thread at a time."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._most = max(1.0, per_second)
        self._tokens = self._most
        self._counted_at = clock()

    def take(self) -> int:
        """0 if one more may come, else the whole seconds after which it may."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self._per_second))


def peer_of(host: str) -> str:
    """Whom an address counts for: of IPv6 the network of 64 bits, which one customer of a provider has whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.IPv6Address(int(address) >> 64 << 64))


class Held(Protocol):
    """A part of the room."""

    @property
    def peer(self) -> str: ...

    @property
    def hook(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def since(self) -> float: ...


H = TypeVar("H", bound=Held)


def worst_first(held: Iterable[H], now: float) -> list[H]:
    """In the order in which to drop it: always the oldest of the hook that takes most, of the peer that takes most.

    What one takes is its size times its age. A sender that sends without delay takes next to nothing, even behind a
    proxy, where all senders are one peer.
    """
    peers: dict[str, dict[str, list[H]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(held, key=lambda one: one.since):
        peers[one.peer][one.hook].append(one)
    return _merged([_merged(hooks.values(), now) for hooks in peers.values()], now)


def _merged(groups: Iterable[list[H]], now: float) -> list[H]:
    """One order from that of each group: next is always the first of the group whose rest takes most."""
    ranked: list[tuple[float, H]] = []
    for group in groups:
        rest = 0.0
        for one in reversed(group):
            rest += one.size * (now - one.since) + 1e-9
            ranked.append((rest, one))
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0], reverse=True)]


@dataclass(eq=False, slots=True)
class Arriving:
    """A body that is being received."""

    peer: str
    hook: str
    since: float
    drop: Callable[[], None]
    size: int = 0
    dropped: bool = False


class ArrivalRoom:
    """What bodies may hold in memory while they arrive. One thread at a time."""

    def __init__(self, most_bytes: int = MOST_ARRIVING_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._held: dict[Arriving, None] = {}
        self.bytes = 0

    @contextmanager
    def arriving(self, peer: str, hook: str, drop: Callable[[], None]) -> Iterator[Arriving]:
        """`drop` is called when others need its room."""
        one = Arriving(peer, hook, self._clock(), drop)
        self._held[one] = None
        try:
            yield one
        finally:
            self._forget(one)

    def grow(self, one: Arriving, size: int) -> bool:
        """False if this one has to go."""
        if one.dropped:
            return False
        one.size += size
        self.bytes += size
        if self.bytes > self._most_bytes:
            enough = self._most_bytes * (1 - DROPPED_AT_ONCE)
            for worst in worst_first(self._held, self._clock()):
                if self.bytes <= enough:
                    break
                self._forget(worst)
                worst.dropped = True
                worst.drop()
        return not one.dropped

    def _forget(self, one: Arriving) -> None:
        if self._held.pop(one, one) is None:
            self.bytes -= one.size


class Room:
    """Genuine messages that wait for their commit. One thread at a time."""

    def __init__(self, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES) -> None:
        self._most = (most_requests, most_bytes)
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def place(self, inbox: str, size: int) -> Iterator[bool]:
        """For one more message of that size; False if there is no room for it."""
        fits = all(
            _fits(held, inbox, more, most)
            for held, more, most in zip((self._requests, self._bytes), (1, size), self._most, strict=True)
        )
        if not fits:
            yield False
            return
        self._requests[inbox] += 1
        self._bytes[inbox] += size
        try:
            yield True
        finally:
            self._requests[inbox] -= 1
            self._bytes[inbox] -= size
            if not self._requests[inbox]:
                del self._requests[inbox], self._bytes[inbox]


def _fits(held: Counter[str], inbox: str, more: int, most: int) -> bool:
    free = most - held.total() - more
    return free >= 0 and (inbox not in held or held[inbox] + more <= SHARE * free)
