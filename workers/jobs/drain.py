"""A drain of jobs: the task of looking at a queue, which is given to the engine of the process."""

from relay.drains.lease import DrainResult, DrainStart
from relay.errors import ConfigError
from relay.models import Drain
from workers.jobs.engine import Engine


def hand_over(engine: Engine | None, drain: Drain, start: DrainStart) -> DrainResult | None:
    """None: the engine has it, and ends it. Else what became of it. Raises ConfigError."""
    if engine is None:
        raise ConfigError("this worker process runs no jobs: start it with --jobs MODULE or --job-queues NAMES")
    queue = start.outbox.removeprefix("jobs/")
    if not engine.serves(queue):
        return DrainResult("later", retry_seconds=engine.passed_on(queue))
    engine.take(drain, start)
    return None
