"""What the drains of one process share: connections, open sinks and sources, slots to wait in."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, NamedTuple, Protocol, TypeVar

from relay.backends.sink import Sink
from relay.backends.source import Source
from relay.database.connection import Connection, Pool, database_errors, make_worker_pool, pooled
from relay.database.identity import read_identity
from relay.database.migrate import Watch
from relay.drains.messages import Place
from relay.pipelines.config import ForwardConfig
from relay.process.stop import Stop
from relay.settings import Settings
from workers.jobs.engine import Engine
from workers.wait_slots import WaitSlots

MAX_IDLE = 64
# A thread that serves a queue asks: it must not wait long for a session that drains hold.
IDENTITY_SECONDS = 2.0


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class OpenCache(Generic[T]):
    """Open sinks, or sources, between drains. A drain takes one out while it uses it: no two threads share one.

    Each is kept with a state: of a sink the pipeline's revision, of a source also the drain that used it last. It is
    used again only in the same state, and closed otherwise.
    """

    def __init__(self, limit: int = MAX_IDLE) -> None:
        self._limit = limit
        self._idle: OrderedDict[str, tuple[Hashable, T]] = OrderedDict()
        self._lock = Lock()

    def take(self, pipeline: str, state: Hashable, make: Callable[[], T], open_it: Callable[[T], None]) -> T:
        """What was kept in this state, or a new one, opened."""
        with self._lock:
            kept_state, kept = self._idle.pop(pipeline, (state, None))
        if kept and kept_state == state:
            return kept
        if kept:
            kept.close()
        made = make()
        try:
            open_it(made)
        except BaseException:
            made.close()
            raise
        return made

    def give_back(self, pipeline: str, state: Hashable, thing: T) -> None:
        """Keeps what works. Closes the one that was used longest ago if there are too many."""
        with self._lock:
            _, doubled = self._idle.pop(pipeline, (None, None))
            self._idle[pipeline] = (state, thing)
            oldest = self._idle.popitem(last=False)[1][1] if len(self._idle) > self._limit else None
        for surplus in (doubled, oldest):
            if surplus:
                surplus.close()

    def close(self) -> None:
        with self._lock:
            kept = [thing for _, thing in self._idle.values()]
            self._idle.clear()
        for thing in kept:
            thing.close()


class OpenSink(NamedTuple):
    """A sink between drains, and its configuration: to check that takes longer than to deliver a message."""

    config: ForwardConfig
    sink: Sink

    def close(self) -> None:
        self.sink.close()


class Resources:
    """Made once in each worker process, for as many drains at a time as it has threads.

    `others_wait` tells whether drains are queued in this process that no thread has taken yet; `all_may_wait` that it
    has reverse drains only. `jobs` runs its jobs, if it runs any.
    """

    def __init__(
        self,
        settings: Settings,
        threads: int,
        others_wait: Callable[[], bool] = lambda: False,
        *,
        all_may_wait: bool = False,
        jobs: Engine | None = None,
    ) -> None:
        self.pool: Pool = make_worker_pool(settings, threads)
        self.schema = Watch()
        self.sinks: OpenCache[OpenSink] = OpenCache()
        self.sources: OpenCache[Source] = OpenCache()
        # Where there is other work, one thread never waits on a source, so that the work finds it free.
        self.wait_slots = WaitSlots(threads if all_may_wait else max(1, threads - 1), others_wait)
        self.jobs = jobs
        self.guesses: dict[str, Place] = {}
        """Where the next forward drain of a pipeline begins to read, unless another process drains it meanwhile."""
        self.stop = Stop()

    def identity(self) -> str:
        """Of the database. Raises NotConnected, ConfigError, MigrationError."""
        with database_errors(), pooled(self.pool, IDENTITY_SECONDS) as connection:
            return read_identity(connection)

    @contextmanager
    def session(self, wait_seconds: float) -> Iterator[Connection]:
        """For a sign of life. Raises NotConnected, ConfigError, MigrationError."""
        with database_errors(), pooled(self.pool, wait_seconds) as connection:
            yield connection

    def close(self) -> None:
        """After the last drain has ended."""
        self.sinks.close()
        self.sources.close()
        self.pool.close()
