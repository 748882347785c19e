"""Drains in this process until something is there: what a fleet does, without waiting for one to start."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.fleets.single_drains import Bench
from tests.services.postgres import Database
from tests.waiting import wait_until


class Drains(Bench):
    """The resources of one worker on one database."""

    def until(self, pipeline: str, done: Callable[[], object], timeout_seconds: float = 30) -> None:
        """Drain after drain, until it is `done`. A drain may fail for now, as in a fleet; a wrong configuration not."""

        def is_done() -> bool:
            self.drain(pipeline)
            [error] = self.query("select error_code, error from tide.drain where pipeline = %s", pipeline)
            assert error[0] != "config", error
            return bool(done())

        try:
            wait_until(is_done, timeout_seconds, f"pipeline {pipeline} is done")
        finally:
            last = "select outcome, error_code, error from tide.drain where pipeline = %s"
            print(pipeline, "ended its last drain with", *self.query(last, pipeline))

    def until_idle(self, pipeline: str) -> None:
        """Until a forward pipeline has settled everything."""
        self.until(pipeline, lambda: self.last("outcome", pipeline) == "idle")


@contextmanager
def draining(database: Database) -> Iterator[Drains]:
    made = Drains(database)
    try:
        yield made
    finally:
        made.close()
