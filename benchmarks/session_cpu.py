"""CPU that the sessions of the server spend on a transaction: steadier than throughput on a machine that others use."""

from collections.abc import Callable

from benchmarks import proc
from benchmarks.stack import Database, Stack, wait_until


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
            cpu, transactions = self._now(ids or self._ids)
            rate = measure()
            cpu_after, transactions_after = self._now(ids or self._ids)
            cpu_total, transactions_total = self._totals.get(name, (0.0, 0))
            self._totals[name] = (cpu_total + cpu_after - cpu, transactions_total + transactions_after - transactions)
            return rate

        return measured

    def microseconds(self, name: str) -> float:
        """Of one."""
        cpu, transactions = self._totals[name]
        return cpu / transactions * 1e6

    def _now(self, ids: str) -> tuple[float, int]:
        wait_until(lambda: not self._sessions(), "the sessions of pgbench have ended")
        last_id = self._database.run("select coalesce(pg_sequence_last_value(%s::regclass), 0)", ids)
        return proc.reaped_seconds(self._pid), int(last_id)

    def _sessions(self) -> int:
        return int(self._database.run("select count(*) from pg_stat_activity where application_name = 'pgbench'"))
