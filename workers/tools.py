"""What the drains of one process share: connections and open sinks."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from relay.db import Pool, make_worker_pool
from relay.settings import Settings
from relay.sinks import Sink
from relay.stop import Stop

MAX_IDLE_SINKS = 64


class SinkCache:
    """Open sinks between drains. A drain takes a sink out while it uses it, so that no two threads share one."""

    def __init__(self, limit: int = MAX_IDLE_SINKS) -> None:
        self._limit = limit
        self._idle: OrderedDict[str, tuple[int, Sink]] = OrderedDict()
        self._lock = Lock()

    def take(self, pipeline: str, revision: int, make: Callable[[], Sink]) -> Sink:
        """The open sink of this revision of the pipeline, or a new one, opened."""
        with self._lock:
            kept_revision, kept = self._idle.pop(pipeline, (revision, None))
        if kept and kept_revision == revision:
            return kept
        if kept:
            kept.close()
        sink = make()
        try:
            sink.open()
        except BaseException:
            sink.close()
            raise
        return sink

    def give_back(self, pipeline: str, revision: int, sink: Sink) -> None:
        """Keeps a sink that works. Closes the one that was used longest ago if there are too many."""
        with self._lock:
            _, doubled = self._idle.pop(pipeline, (0, None))
            self._idle[pipeline] = (revision, sink)
            oldest = self._idle.popitem(last=False)[1][1] if len(self._idle) > self._limit else None
        for surplus in (doubled, oldest):
            if surplus:
                surplus.close()

    def close(self) -> None:
        with self._lock:
            kept = [sink for _, sink in self._idle.values()]
            self._idle.clear()
        for sink in kept:
            sink.close()


class Tools:
    """Made once in each worker process, for as many drains at a time as it has threads."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self.pool: Pool = make_worker_pool(settings, threads)
        self.sinks = SinkCache()
        self.stop = Stop()

    def close(self) -> None:
        """After the last drain has ended."""
        self.sinks.close()
        self.pool.close()
