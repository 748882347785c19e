"""Threads that do everything there is at random: workers, each on a session that is opened again when it dies of
something, and others beside them."""

import contextlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg

from tests.services.postgres import Database

Session = psycopg.Connection
Other = Callable[[random.Random], None]


@contextlib.contextmanager
def at_once(stop: threading.Event, calls: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Each call in a thread of its own, until `stop` is set at the end. What went wrong in one is raised then."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            yield
        finally:
            stop.set()
    for future in futures:
        future.result()


class Crowd(ABC):
    """A subclass says what a worker does, and who else is about. The chances of each are the same in every run."""

    def __init__(self, database: Database, *others: Other) -> None:
        self._database = database
        self._others = others
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.deaths = 0

    def running(self, workers: int) -> contextlib.AbstractContextManager[None]:
        """What went wrong in a thread is raised at the end."""
        calls = [partial(self._work, f"c{number}", random.Random(number)) for number in range(workers)]
        calls += [partial(other, random.Random(100 + number)) for number, other in enumerate(self._others)]
        return at_once(self._stop, calls)

    def _work(self, name: str, chance: random.Random) -> None:
        while not self._stop.is_set():
            with self._database.connect() as session:
                while not self._stop.is_set() and self._once(session, name, chance):
                    pass

    @abstractmethod
    def _once(self, session: Session, name: str, chance: random.Random) -> bool:
        """One turn of a worker; false when it died of it."""
