"""A real scheduler and real workers for a test, as `relay up` runs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from relay.local.programs import Program, make_scheduler, make_workers
from relay.settings import Settings


@dataclass
class Fleet:
    """Its programs, not started, and what they write."""

    settings: Settings
    log: list[bytes] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler: Program = make_scheduler(
            self.settings, on_output=self.output.append, on_log=self.log.append, inherit=False
        )
        self.workers: Program = make_workers(
            self.settings, on_output=self.output.append, on_log=self.log.append, inherit=False
        )


@contextmanager
def fleet(postgres_url: str, broker_url: str, *, scheduler: bool = True, workers: bool = True) -> Iterator[Fleet]:
    settings = Settings.load(
        postgres_url=postgres_url, broker_url=broker_url, metrics_addr="127.0.0.1:0", worker_metrics_addr="127.0.0.1:0",
        worker_processes=1, worker_threads=2,
    )  # fmt: skip
    made = Fleet(settings)
    try:
        if scheduler:
            made.scheduler.start()
        if workers:
            made.workers.start()
        yield made
    finally:
        made.workers.stop()
        made.scheduler.stop()
