"""CPU that the sessions of the server spend on a transaction: steadier than throughput on a machine that others use."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import proc
from benchmarks.stack import Connection, Database, Stack, wait_until

# In it each session connects, reads the catalogs, compiles and plans, once: as much CPU as thousands of transactions.
WARM_SECONDS = 1.0
SESSIONS = "select pid from pg_stat_activity where application_name = 'pgbench'"


class SessionCpu:
    """Sessions of pgbench end with it, and the server, which reaps them, then knows what they used."""

    def __init__(self, stack: Stack, database: Database, ids: str) -> None:
        """`ids`: the sequence that counts what is measured: transactions, or messages."""
        self._database = database
        self._ids = ids
        self._pid = stack.postgres.pid or 0
        self._totals: dict[str, tuple[float, int]] = {}

    def of(self, name: str, measure: Callable[[], float], ids: str | None = None) -> Callable[[], float]:
        """The same measurement, added to what is known under this name. `ids`: another sequence that counts it."""

        def measured() -> float:
            with ThreadPoolExecutor(1) as pool:
                warm = pool.submit(self._once_warm, ids or self._ids)
                rate = measure()
                cpu, transactions, pids = warm.result()
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the sessions are reaped")
            cpu_after, transactions_after, _ = self._now(self._database.session, ids or self._ids)
            cpu_total, transactions_total = self._totals.get(name, (0.0, 0))
            self._totals[name] = (cpu_total + cpu_after - cpu, transactions_total + transactions_after - transactions)
            return rate

        return measured

    def microseconds(self, name: str) -> float:
        """Of one."""
        cpu, transactions = self._totals[name]
        return cpu / transactions * 1e6

    def _once_warm(self, ids: str) -> tuple[float, int, list[int]]:
        with self._database.connect() as session:
            first_id = _last_id(session, ids)
            wait_until(lambda: _last_id(session, ids) > first_id, "a session of pgbench has done something")
            time.sleep(WARM_SECONDS)
            return self._now(session, ids)

    def _now(self, session: Connection, ids: str) -> tuple[float, int, list[int]]:
        """CPU of the sessions so far, of those that have ended too, the last id, and the sessions."""
        pids = _sessions(session)
        cpu = proc.reaped_seconds(self._pid) + sum(proc.cpu_seconds(pid) for pid in pids)
        return cpu, _last_id(session, ids), pids


def _last_id(session: Connection, ids: str) -> int:
    row = session.execute("select coalesce(pg_sequence_last_value(%s::regclass), 0)", [ids]).fetchone()
    return int(row[0]) if row else 0


def _sessions(session: Connection) -> list[int]:
    return [pid for (pid,) in session.execute(SESSIONS.encode())]
