"""The system that `relay demo` runs: PostgreSQL, Redis, a scheduler, and workers that drain `orders` into two sinks,
refresh a stream table and deliver its changes, and run the jobs."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from relay.errors import NotConnected
from relay.local.demo import receipts, totals
from relay.local.demo.check import Arrivals, FileTail
from relay.local.own_folder import private
from relay.local.programs import Program, make_scheduler, make_workers
from relay.settings import Settings

FILE_PIPELINE, TERMINAL_PIPELINE = "to-file", "to-terminal"
WORKER_PROCESSES, WORKER_THREADS = 1, 4


@dataclass(frozen=True, slots=True)
class Fleet:
    """A scheduler and workers that drain the outbox to a file and to their standard output."""

    scheduler: Program
    workers: Program
    tail: FileTail
    arrivals: tuple[Arrivals, Arrivals]

    def start(self) -> None:
        self.tail.start()
        self.scheduler.start()
        self.workers.start()

    def check(self) -> None:
        """Raises NotConnected if a process has ended that should run."""
        for name, program in (("relay-scheduler", self.scheduler), ("dramatiq relay.workers", self.workers)):
            if program.pid is None:
                raise NotConnected(f"{name} ended with exit code {program.exit_code}", code="ended")

    def stop(self) -> None:
        """No line arrives after this."""
        self.scheduler.ask_to_stop()
        self.workers.stop()
        self.scheduler.stop()
        self.tail.finish()


def fleet_settings(postgres_url: str, broker_url: str, folder: Path) -> Settings:
    return Settings.load(
        postgres_url=postgres_url, broker_url=broker_url, metrics_addr="127.0.0.1:0", worker_metrics_addr="127.0.0.1:0",
        worker_processes=WORKER_PROCESSES, worker_threads=WORKER_THREADS, sink_folders=(str(folder),),
        job_modules=(receipts.__name__,),
    )  # fmt: skip


def pipelines(out: Path, totals_out: Path) -> dict[str, dict[str, str]]:
    """The configurations, by name."""
    return {
        FILE_PIPELINE: {"sink_type": "file", "path": str(out)},
        TERMINAL_PIPELINE: {"sink_type": "stdout"},
        totals.PIPELINE: {"sink_type": "file", "path": str(totals_out)},
    }


def totals_file(folder: Path) -> Path:
    return folder / "totals.jsonl"


def logs(folder: Path) -> tuple[Path, Path]:
    return folder / "scheduler.log", folder / "workers.log"


def log_file(path: Path) -> BinaryIO:
    return open(path, "wb", 0, opener=private)


def make_fleet(settings: Settings, stack: ExitStack, folder: Path, out: Path) -> Fleet:
    """A fleet that is not started; `stack` closes its logs."""
    to_file, to_terminal = Arrivals(FILE_PIPELINE), Arrivals(TERMINAL_PIPELINE)
    scheduler_log, workers_log = (stack.enter_context(log_file(log)) for log in logs(folder))
    return Fleet(
        make_scheduler(settings, on_output=scheduler_log.write, on_log=scheduler_log.write, inherit=False),
        make_workers(settings, on_output=to_terminal.arrived, on_log=workers_log.write, inherit=False),
        FileTail(out, to_file.arrived),
        (to_file, to_terminal),
    )
