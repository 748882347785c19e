"""Open sinks and sources between drains: each is used by one drain at a time, and closed exactly once in the end."""

import threading

import pytest

from relay.backends.memory.config import MemorySinkConfig
from relay.backends.memory.sink import MemorySink
from relay.errors import NotConnected
from workers.resources import OpenCache


class Watched(MemorySink):
    """A memory sink that counts."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(MemorySinkConfig(), "orders")
        self.fails = fails
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.fails:
            raise NotConnected("down")
        super().open()

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_a_sink_is_opened_once_and_taken_again():
    cache: OpenCache[Watched] = OpenCache()
    first = cache.take("orders", 1, Watched, Watched.open)
    cache.give_back("orders", 1, first)
    assert cache.take("orders", 1, Watched, Watched.open) is first
    assert (first.opened, first.closed) == (1, 0)


def test_two_drains_never_hold_the_same_sink():
    cache: OpenCache[Watched] = OpenCache()
    first, second = cache.take("orders", 1, Watched, Watched.open), cache.take("orders", 1, Watched, Watched.open)
    assert first is not second
    cache.give_back("orders", 1, first)
    cache.give_back("orders", 1, second)
    assert first.closed == 1, "one is kept"
    assert cache.take("orders", 1, Watched, Watched.open) is second


def test_a_sink_of_an_older_configuration_is_closed():
    cache: OpenCache[Watched] = OpenCache()
    old = cache.take("orders", 1, Watched, Watched.open)
    cache.give_back("orders", 1, old)
    new = cache.take("orders", 2, Watched, Watched.open)
    assert new is not old
    assert (old.closed, new.closed) == (1, 0)


def test_the_sink_used_longest_ago_is_closed_when_there_are_too_many():
    cache: OpenCache[Watched] = OpenCache(limit=2)
    sinks = {name: cache.take(name, 1, Watched, Watched.open) for name in "abc"}
    for name in "abac":
        cache.give_back(name, 1, sinks[name] if name != "a" else cache.take("a", 1, lambda: sinks["a"], Watched.open))
    assert [sinks[name].closed for name in "abc"] == [0, 1, 0]


def test_a_sink_that_cannot_be_opened_is_closed_and_not_kept():
    cache: OpenCache[Watched] = OpenCache()
    broken = Watched(fails=True)
    with pytest.raises(NotConnected):
        cache.take("orders", 1, lambda: broken, Watched.open)
    assert broken.closed == 1
    assert cache.take("orders", 1, Watched, Watched.open) is not broken


def test_close_closes_what_is_kept():
    cache: OpenCache[Watched] = OpenCache()
    kept = [cache.take(name, 1, Watched, Watched.open) for name in "ab"]
    for name, sink in zip("ab", kept, strict=True):
        cache.give_back(name, 1, sink)
    cache.close()
    cache.close()
    assert [sink.closed for sink in kept] == [1, 1]


def test_many_threads_share_a_cache_without_sharing_a_sink():
    cache: OpenCache[Watched] = OpenCache()
    in_use: set[int] = set()
    lock = threading.Lock()
    made: list[Watched] = []

    def make() -> Watched:
        made.append(Watched())
        return made[-1]

    def drain_often() -> None:
        for _ in range(200):
            sink = cache.take("orders", 1, make, Watched.open)
            with lock:
                assert id(sink) not in in_use
                in_use.add(id(sink))
            with lock:
                in_use.remove(id(sink))
            cache.give_back("orders", 1, sink)

    threads = [threading.Thread(target=drain_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert all(sink.closed == 1 for sink in made)
