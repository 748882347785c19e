"""From which queues a trip claims, and how much; and when the next trip is due."""

import math

from workers.jobs.held import Held
from workers.jobs.runner import SWEEP_SECONDS, Runner
from workers.jobs.store import Visit

PACE_SECONDS = 0.008
"""Between trips that only take a few jobs more."""


def visits(queues: Held, runner: Runner, now: float, tripped_at: float) -> list[Visit]:
    """The claims of the next trip, in the order of the queues' numbers, as locks must be taken."""
    hungry = [queue for queue in queues.hungry() if not queue.bell]
    found = []
    for queue in sorted(hungry, key=lambda queue: queue.outbox_id):
        room = runner.room(queue)
        # Several queues share what there is; the next trip follows at once.
        want = min(1000, room if len(hungry) == 1 else math.ceil(room / len(hungry)))
        if want <= 0:
            queue.waits_for_room(now)
        elif runner.is_low(queue) or now - tripped_at >= PACE_SECONDS:
            found.append(Visit(queue, want, queue.visited()))
    return found


def next_at(queues: Held, runner: Runner, now: float, tripped_at: float) -> float:
    """When something may have to be done, if nothing happens before."""
    due_at = queues.next_at()
    if hungry := queues.hungry():
        has_room = any(runner.room(queue) > 0 for queue in hungry)
        due_at = min(due_at, max(now, tripped_at) + PACE_SECONDS if has_room else now + SWEEP_SECONDS)
    return due_at
