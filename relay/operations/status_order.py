"""What an operator should see first: from a status to its rank, and which share one reason. No I/O."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import IntEnum

from relay.operations.status_facts import Status


class Rank(IntEnum):
    """The most urgent first."""

    BROKEN = 0
    """It does not recover automatically."""
    FAILING = 1
    """It fails, or no one drains it, or retention will soon remove what it has not delivered."""
    LAGGING = 2
    """Messages or jobs wait, and nothing takes them."""
    DEAD = 3
    """It has nothing to do, and something in it is dead."""
    BUSY = 4
    QUIET = 5
    """Idle, or disabled."""


def rank(status: Status) -> Rank:
    if status.state in ("broken", "invalid"):
        return Rank.BROKEN
    if status.state in ("retrying", "unowned") or status.last_error or status.hold_seconds is not None:
        return Rank.FAILING
    if status.state in ("held", "waiting"):
        return Rank.LAGGING
    if status.state in ("draining", "running"):
        return Rank.BUSY
    return Rank.DEAD if status.dead_letters or (status.jobs and status.jobs.dead) else Rank.QUIET


def grouped(statuses: Iterable[Status]) -> list[Sequence[Status]]:
    """Those of the same state and reason together, the most urgent first."""
    found: dict[tuple[Rank, str, str], list[Status]] = defaultdict(list)
    for status in sorted(statuses, key=lambda status: (rank(status), status.name)):
        found[rank(status), status.state, status.why].append(status)
    # By rank, and then by the first name of each.
    return sorted(found.values(), key=lambda group: (rank(group[0]), group[0].name))
