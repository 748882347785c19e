"""One run of `relay demo`: start the system, publish orders, wait until they have arrived, and compare."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relay.database.connection import Connection, connect
from relay.database.migrate import migrate
from relay.errors import NotConnected, RelayError
from relay.local.demo import fleet as fleets
from relay.local.demo.check import Arrivals, Verdict, judge
from relay.local.demo.fleet import Fleet
from relay.local.demo.orders import WRITERS, Budget, Ledger, Writer
from relay.local.demo.receipts import Receipt, ReceiptVerdict, enqueue, judge_receipts
from relay.local.demo.totals import TotalsVerdict, delivered_lines, judge_totals, read_totals
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis, postgres_group
from relay.process.stop import Stop
from relay.settings import Settings

START_SECONDS = 60.0
# After the last commit, everything must have arrived within this time.
ARRIVAL_SECONDS = 30.0
POLL_SECONDS = 0.02
SLOW_POLL_SECONDS = 0.2


class Stopped(Exception):
    """Ctrl-C or SIGTERM: everything was stopped and removed."""


class Watching(Protocol):
    """Shows the run while it goes on."""

    def refresh(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One run, and what it needs from the layers above: operations on the database, and a display of its progress."""

    events: int
    seconds: float
    stop: Stop
    set_up: Callable[[Connection, dict[str, dict[str, str]]], None]
    """Creates the outbox and the stream table, and these pipelines by name and configuration."""
    is_idle: Callable[[Connection], bool]
    """Whether each pipeline was drained once."""
    tell: Callable[[str], None]
    """Gets one line for each step."""
    watch: Callable[[Budget, Ledger, Sequence[Arrivals]], AbstractContextManager[Watching]]
    receipts: Callable[[Connection], list[Receipt]]
    """Reads the jobs of the queue of receipts."""
    show_log: Callable[[Path], None]
    """Gets the log of a program when something is not right."""

    def run(self) -> tuple[list[Verdict], ReceiptVerdict, TotalsVerdict]:
        """How each pipeline did, the jobs, and the stream table.

        Raises Stopped, or RelayError if a part does not start or dies.
        """
        with _folder() as folder, ExitStack() as stack:
            try:
                settings, fleet = self._start(stack, folder)
                ledger = self._publish(settings, fleet)
                receipts = self._judge_receipts(settings, ledger)
                totals = self._judge_totals(settings, ledger, fleets.totals_file(folder))
                fleet.stop()
                verdicts = [judge(ledger, arrivals) for arrivals in fleet.arrivals]
            except RelayError:
                if self.stop.is_set():
                    raise Stopped from None
                self._show_logs(folder)
                raise
            if not (receipts.right and totals.right and all(verdict.right for verdict in verdicts)):
                self._show_logs(folder)
            return verdicts, receipts, totals

    def _start(self, stack: ExitStack, folder: Path) -> tuple[Settings, Fleet]:
        self._step("starting PostgreSQL and Redis in a temporary folder")
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        self._step(
            "applying the schema, creating the outbox orders, a stream table, three pipelines and a queue of jobs"
        )
        migrate(postgres.url)
        out = folder / "orders.jsonl"
        settings = fleets.fleet_settings(postgres.url, redis.url, folder)
        with closing(connect(settings, "tide-relay demo")) as connection:
            self.set_up(connection, fleets.pipelines(out, fleets.totals_file(folder)))
            self._step("starting relay-scheduler and dramatiq relay.workers")
            fleet = fleets.make_fleet(settings, stack, folder, out)
            stack.callback(fleet.stop)
            fleet.start()
            self._wait_until_idle(connection, fleet)
        return settings, fleet

    def _step(self, text: str) -> None:
        if self.stop.is_set():
            raise Stopped
        self.tell(text)

    def _wait_until_idle(self, connection: Connection, fleet: Fleet) -> None:
        """Then what is measured is delivery, not the start."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_idle(connection):
            fleet.check()
            if time.monotonic() > deadline:
                raise NotConnected(f"scheduler and workers were not ready after {START_SECONDS:.0f} s", code="timeout")
            if self.stop.wait(POLL_SECONDS):
                raise Stopped

    def _publish(self, settings: Settings, fleet: Fleet) -> Ledger:
        """Publishes everything, and waits until it has arrived, or should have."""
        enough = Stop()
        budget, ledger = Budget(self.events, self.seconds, enough), Ledger()
        with (
            enough,
            ThreadPoolExecutor(WRITERS) as pool,
            self.watch(budget, ledger, fleet.arrivals) as watching,
        ):
            url = settings.postgres_url
            writers = [pool.submit(Writer(url, budget, ledger, seed, enqueue).run) for seed in range(WRITERS)]
            try:
                while not _is_over(writers, ledger, fleet.arrivals):
                    if self.stop.wait(POLL_SECONDS):
                        raise Stopped
                    fleet.check()
                    watching.refresh()
            finally:
                enough.set()
        return ledger

    def _judge_receipts(self, settings: Settings, ledger: Ledger) -> ReceiptVerdict:
        """Waits until each job has ended, or should have."""
        with closing(connect(settings, "tide-relay demo")) as connection:
            while True:
                found = self.receipts(connection)
                late = time.monotonic() > ledger.last_commit_at + ARRIVAL_SECONDS
                if late or all(receipt.state not in ("pending", "leased") for receipt in found):
                    return judge_receipts(ledger, {receipt.label: receipt for receipt in found})
                if self.stop.wait(POLL_SECONDS):
                    raise Stopped

    def _judge_totals(self, settings: Settings, ledger: Ledger, file: Path) -> TotalsVerdict:
        """Waits until the last refresh has arrived, or should have."""
        with closing(connect(settings, "tide-relay demo")) as connection:
            while True:
                late = time.monotonic() > ledger.last_commit_at + ARRIVAL_SECONDS
                verdict = judge_totals(ledger, *read_totals(connection), delivered_lines(file))
                if late or verdict.right:
                    return verdict
                if self.stop.wait(SLOW_POLL_SECONDS):
                    raise Stopped

    def _show_logs(self, folder: Path) -> None:
        for log in fleets.logs(folder):
            if log.exists():
                self.show_log(log)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tide-demo-"))
    try:
        group = postgres_group()
        if group is not None:  # it is ours, and PostgreSQL has to pass through it
            os.chown(folder, -1, group)
            folder.chmod(0o710)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_over(writers: Sequence["Future[None]"], ledger: Ledger, arrivals: Sequence[Arrivals]) -> bool:
    if not all(writer.done() for writer in writers):
        return False
    for writer in writers:
        writer.result()
    if all(len(pipeline.first) >= len(ledger.committed) for pipeline in arrivals):
        return True
    return time.monotonic() > ledger.last_commit_at + ARRIVAL_SECONDS
