"""When each owned pipeline is due, and for what: in several lists, so that urgent ones do not wait for the many."""

from collections.abc import Iterator, Mapping

from scheduler.due import DueList
from scheduler.refresh_queue import RefreshQueue
from scheduler.starts import Starts
from scheduler.state import OwnedState


class Agenda:
    """A pipeline is in one of `urgent`, `calm`, `starts`, `refreshes`; and in `looks` too, while its drain is said to
    be over.
    """

    def __init__(self, owned: Mapping[str, OwnedState]) -> None:
        self._owned = owned
        self.urgent = DueList()
        """Those that may have something to deliver, and those in a drain."""
        self.calm = DueList()
        """Those that are new here, or idle."""
        self.starts = Starts()
        """Those that wait for their first drain."""
        self.refreshes = RefreshQueue(owned)
        """Stream tables that are to be refreshed."""
        self.looks = DueList()

    def put(self, state: OwnedState) -> None:
        """It waits for something else now."""
        waits: DueList | RefreshQueue = self.urgent
        if state.spec.refreshes and state.phase == "waiting":
            waits = self.refreshes
        elif state.phase in ("claiming", "idle"):
            waits = self.calm
        elif state.starts and state.phase == "waiting":
            waits = self.starts.due
        for other in (self.urgent, self.calm, self.starts.due, self.refreshes):
            if other is not waits:
                other.remove(state.spec.name)
        waits.set(state.spec.name, state.due_at)

    def remove(self, name: str) -> None:
        """It is not owned any more."""
        for due in (self.urgent, self.calm, self.starts.due, self.refreshes, self.looks):
            due.remove(name)

    def take(self, due: DueList, now: float, most: int) -> list[OwnedState]:
        """Takes out what is due; so many at most."""
        return [self._owned[name] for name in due.pop(now, most)]

    def take_starts(self, now: float) -> list[OwnedState]:
        """Takes out those whose first drain may begin now."""
        return [self._owned[name] for name in self.starts.pop(self._owned, now)]

    def next_at(self, now: float, paused_until: float, refresh_at: float | None) -> float | None:
        """When something is due; None if nothing is. While the broker is paused only looks are.

        `refresh_at`: when a stream table may be refreshed.
        """
        return min(self._times(now, paused_until, refresh_at), default=None)

    def _times(self, now: float, paused_until: float, refresh_at: float | None) -> Iterator[float]:
        for at in (self.urgent.next_at(), self.calm.next_at(), self.starts.next_at(self._owned, now), refresh_at):
            if at is not None:
                yield max(at, paused_until)
        if (look_at := self.looks.next_at()) is not None:
            yield look_at
