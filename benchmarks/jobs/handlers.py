"""The handlers of ours: what those of the peers do too. Of HTTP jobs we have a kind, so they need no handler."""

from benchmarks.jobs.tally import tally
from relay.jobs import job

QUEUE = "bench"


@job(queue=QUEUE)
async def noop(n: int) -> None:  # noqa: ARG001  a coroutine, as those of the peers
    tally.add()


@job(queue=QUEUE)
async def picked(n: int) -> None:
    tally.pick_up(n)
