"""The writers of the kill loop with jobs: transactions that commit, roll back, and roll back to savepoints."""

import random
import threading

import psycopg
from psycopg.types.json import Jsonb

from tests.services.postgres import Database

KEYS = 12
QUEUES = ("plain", "limited", "keyed", "later")


class Enqueuers:
    """Threads that enqueue. A commit whose answer was lost with the server is looked up afterwards."""

    def __init__(self, database: Database, rate: float, threads: int = 4) -> None:
        self._database = database
        self._pause = threads / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.committed: set[str] = set()
        self.unsure: set[str] = set()
        self.rolled_back: set[str] = set()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(number),)) for number in range(threads)]

    def __enter__(self) -> "Enqueuers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._database.url) as connection:
                    while not self._stop.wait(chance.uniform(0, 2 * self._pause)):
                        self._transaction(connection, chance)
            except psycopg.OperationalError:
                self._stop.wait(0.2)

    def _transaction(self, connection: "psycopg.Connection[object]", chance: random.Random) -> None:
        made: set[str] = set()
        undone: set[str] = set()
        try:
            for _ in range(chance.choice((1, 1, 2, 5))):
                made.add(_enqueue(connection, chance))
            if chance.random() < 0.2:
                try:
                    with connection.transaction():
                        undone.add(_enqueue(connection, chance))
                        raise psycopg.Rollback
                except psycopg.Rollback:
                    pass
            if chance.random() < 0.1:
                self._stop.wait(chance.uniform(0, 1))
            if chance.random() < 0.15:
                connection.rollback()
                made, undone = set(), made | undone
            else:
                connection.commit()
        except psycopg.OperationalError:
            with self._lock:
                self.unsure |= made
                self.rolled_back |= undone
            raise
        with self._lock:
            self.committed |= made
            self.rolled_back |= undone


def _enqueue(connection: "psycopg.Connection[object]", chance: random.Random) -> str:
    queue = chance.choice(QUEUES)
    payload: dict[str, object] = {"seconds": chance.choice((0.0, 0.0, 0.01, 0.05))}
    options: dict[str, object] = {}
    name = "recorded"
    if queue == "limited":
        payload["seconds"] = chance.uniform(0.01, 0.1)
        name = chance.choice(("recorded", "recorded_function"))
    elif queue == "keyed":
        payload["key"] = options["run_key"] = f"k{chance.randrange(KEYS)}"
    elif queue == "later":
        payload["failures"] = chance.choice((0, 0, 1, 2))
        if chance.random() < 0.5:
            options["available_at"] = "soon"
    else:
        options["priority"] = chance.choice((0, 0, 0, 5, -5))
    row = connection.execute(
        """
        select tide.job_uuid(%(queue)s, tide.job_enqueue(
                   %(queue)s, %(name)s, %(payload)s, priority => %(priority)s, run_key => %(run_key)s,
                   available_at => case when %(soon)s then clock_timestamp() + interval '300 ms' end))""",
        {
            "queue": queue,
            "name": name,
            "payload": Jsonb(payload),
            "priority": options.get("priority", 0),
            "soon": "available_at" in options,
            "run_key": options.get("run_key"),
        },
    ).fetchone()
    assert row
    return str(row[0])  # type: ignore[index]
