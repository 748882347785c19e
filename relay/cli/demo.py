"""`relay demo`: the whole system on this machine for a moment, and a verdict on what it delivered."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from relay.cli.base import FAILED, INTERRUPTED, Verb, database, output
from relay.database.migrate import migrate
from relay.errors import NotConnected, RelayError
from relay.local.demo.check import Arrivals, FileTail, Verdict, judge
from relay.local.demo.orders import OUTBOX, WRITERS, Budget, Ledger, Writer
from relay.local.demo.view import View, table
from relay.local.programs import Program, make_scheduler, make_workers
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis
from relay.operations.status import read_status
from relay.process.stop import Stop
from relay.settings import Settings
from relay.sql import query

FILE_PIPELINE, TERMINAL_PIPELINE = "to-file", "to-terminal"
START_SECONDS = 60.0
# What was committed last must have arrived so long after.
ARRIVAL_SECONDS = 30.0
WORKER_PROCESSES, WORKER_THREADS = 1, 4
LOG_LINES = 15


class Stopped(Exception):
    """Ctrl-C, or SIGTERM: everything is taken down again."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs: a scheduler and workers that drain `orders` to a file and to their standard output."""

    postgres_url: str
    scheduler: Program
    workers: Program
    tail: FileTail
    arrivals: tuple[Arrivals, Arrivals]

    def check(self) -> None:
        """Raises NotConnected when a process has ended that should run."""
        for name, program in (("relay-scheduler", self.scheduler), ("dramatiq relay.workers", self.workers)):
            if program.pid is None:
                raise NotConnected(f"{name} ended with exit code {program.exit_code}", code="ended")

    def stop(self) -> None:
        """After this no line arrives any more."""
        self.scheduler.ask_to_stop()
        self.workers.stop()
        self.scheduler.stop()
        self.tail.finish()


@click.command(cls=Verb, short_help="Runs the whole system here for a moment, and judges it.")
@click.option(
    "--events", type=click.IntRange(1, 10_000_000), default=5000, metavar="N", help="To commit; default 5000."
)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, metavar="S", help="Spread over; default 10.")
@click.pass_context
def demo(ctx: click.Context, events: int, seconds: float) -> None:
    """Runs the whole system here for a moment, and judges what it delivered.

    Starts PostgreSQL and Redis in a temporary folder, a real relay-scheduler and a real dramatiq relay.workers; eight
    writers publish orders in transactions of every kind, and roll some back; one pipeline delivers them to a file, one
    to the terminal. Everything is stopped and removed at the end. Touches nothing else; needs tide-relay[embedded].

    \b
    Exit codes: 0 all is right: nothing missing, out of order or altered, nothing that was rolled back arrived;
    1 something is not right; 2 wrong usage; 130 interrupted.

    \b
    Example:
      relay demo --events 20000 --seconds 20
    """
    console = output()
    with Stop() as stop:
        stop.on_signals()
        try:
            verdicts = _run(console, stop, events, seconds)
        except Stopped:
            console.print("interrupted; everything is stopped and removed")
            ctx.exit(INTERRUPTED)
    console.print(table(verdicts))
    if all(verdict.right for verdict in verdicts):
        console.print("[green]All is right:[/] every committed order arrived once or more, in order, and no other.")
        return
    console.print("[bold red]Not right:[/] see the red figures above.")
    ctx.exit(FAILED)


def _run(console: Console, stop: Stop, events: int, seconds: float) -> list[Verdict]:
    with _folder() as folder, ExitStack() as stack:
        try:
            fleet = _start(console, stop, stack, folder)
            ledger = _publish(console, stop, fleet, events, seconds)
            fleet.stop()
            verdicts = [judge(ledger, arrivals) for arrivals in fleet.arrivals]
        except RelayError:
            if stop.is_set():
                raise Stopped from None
            _show_logs(folder)
            raise
        if not all(verdict.right for verdict in verdicts):
            _show_logs(folder)
        return verdicts


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tide-demo-"))
    try:
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(console: Console, stop: Stop, stack: ExitStack, folder: Path) -> Fleet:
    def step(text: str) -> None:
        if stop.is_set():
            raise Stopped
        console.print(text, style="dim")

    step("starting PostgreSQL and Redis in a temporary folder")
    postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
    redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
    step("applying the schema, creating the outbox orders and two pipelines")
    migrate(postgres.url)
    settings = Settings.load(
        postgres_url=postgres.url, broker_url=redis.url, metrics_addr="127.0.0.1:0", worker_metrics_addr="127.0.0.1:0",
        worker_processes=WORKER_PROCESSES, worker_threads=WORKER_THREADS,
    )  # fmt: skip
    out = folder / "orders.jsonl"
    _make_pipelines(settings, {FILE_PIPELINE: {"sink_type": "file", "path": str(out)},
                               TERMINAL_PIPELINE: {"sink_type": "stdout"}})  # fmt: skip
    step("starting relay-scheduler and dramatiq relay.workers")
    fleet = _make_fleet(settings, stack, folder, out)
    stack.callback(fleet.stop)
    fleet.tail.start()
    fleet.scheduler.start()
    fleet.workers.start()
    _wait_until_idle(stop, settings, fleet)
    return fleet


def _make_fleet(settings: Settings, stack: ExitStack, folder: Path, out: Path) -> Fleet:
    to_file, to_terminal = Arrivals(FILE_PIPELINE), Arrivals(TERMINAL_PIPELINE)
    scheduler_log = stack.enter_context((folder / "scheduler.log").open("wb", buffering=0))
    workers_log = stack.enter_context((folder / "workers.log").open("wb", buffering=0))
    return Fleet(
        settings.postgres_url,
        make_scheduler(settings, on_output=scheduler_log.write, on_log=scheduler_log.write, inherit=False),
        make_workers(settings, on_output=to_terminal.arrived, on_log=workers_log.write, inherit=False),
        FileTail(out, to_file.arrived),
        (to_file, to_terminal),
    )


def _wait_until_idle(stop: Stop, settings: Settings, fleet: Fleet) -> None:
    """Until each pipeline was drained once and found empty: what is measured then is delivery, not the start."""
    deadline = time.monotonic() + START_SECONDS
    with database(settings, "demo") as connection:
        while not all(pipeline.last_drain_at for pipeline in read_status(connection)):
            fleet.check()
            if time.monotonic() > deadline:
                raise NotConnected(f"scheduler and workers did not get ready in {START_SECONDS:.0f} s", code="timeout")
            if stop.wait(0.02):
                raise Stopped


def _make_pipelines(settings: Settings, pipelines: dict[str, dict[str, str]]) -> None:
    with database(settings, "demo") as connection:
        connection.execute(query("outbox_create"), {"outbox": OUTBOX})
        for name, config in pipelines.items():
            parameters = {"name": name, "outbox": OUTBOX, "group": None, "config": json.dumps(config)}
            connection.execute(query("pipeline_set"), parameters)


def _publish(console: Console, stop: Stop, fleet: Fleet, events: int, seconds: float) -> Ledger:
    """Publishes everything and waits until it has arrived, or should have."""
    enough = Stop()
    budget, ledger = Budget(events, seconds, enough), Ledger()
    with enough, ThreadPoolExecutor(WRITERS) as pool, View(console, budget, ledger, fleet.arrivals) as view:
        writers = [pool.submit(Writer(fleet.postgres_url, budget, ledger, seed).run) for seed in range(WRITERS)]
        try:
            while not _is_over(writers, ledger, fleet.arrivals):
                if stop.wait(0.02):
                    raise Stopped
                fleet.check()
                view.refresh()
        finally:
            enough.set()
    return ledger


def _is_over(writers: Sequence["Future[None]"], ledger: Ledger, arrivals: Sequence[Arrivals]) -> bool:
    if not all(writer.done() for writer in writers):
        return False
    for writer in writers:
        writer.result()
    if all(len(pipeline.first) >= len(ledger.committed) for pipeline in arrivals):
        return True
    return time.monotonic() > ledger.last_commit_at + ARRIVAL_SECONDS


def _show_logs(folder: Path) -> None:
    for log in (folder / "scheduler.log", folder / "workers.log"):
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            print(f"\nthe end of {log.name}:", *lines, sep="\n  ", file=sys.stderr)  # noqa: T201
