"""Databases that are ready before a test asks: copies of a template are made ahead, and used ones dropped, on a thread.

Making and dropping take as long as a short test. Most of it is waiting, which no test then does.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg

AHEAD = 2


class ReadyDatabases:
    """One thread and one session of the superuser. The server may be stopped, killed and started meanwhile."""

    def __init__(self, url: str, make: Callable[[Any], str], drop: Callable[[Any, str], None]) -> None:
        self._url, self._make, self._drop = url, make, drop
        self._thread = ThreadPoolExecutor(1, "databases")
        self._ready: deque[Future[str]] = deque()
        self._session: psycopg.Connection[Any] | None = None

    def take(self) -> str:
        """The name of a database that no other test had or will have."""
        while len(self._ready) <= AHEAD:
            self._ready.append(self._thread.submit(self._with_session, self._make))
        try:
            return self._ready.popleft().result()
        except psycopg.OperationalError:  # the server was stopped when this one was to be made
            return self._thread.submit(self._with_session, self._make).result()

    def give_back(self, name: str) -> None:
        """Sooner or later it is dropped. If the server is stopped then, it stays until the run ends."""
        self._thread.submit(self._with_session, lambda admin: self._drop(admin, name))

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._session:
            self._session.close()

    def _with_session(self, job: Callable[[Any], Any]) -> Any:
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self._url, autocommit=True, application_name="databases of the tests")
        try:
            return job(self._session)
        except psycopg.OperationalError:
            with contextlib.suppress(psycopg.Error):
                self._session.close()
            raise
