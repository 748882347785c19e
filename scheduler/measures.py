"""What a scheduler measures of the pipelines that it owns. Asks about those that moved: an idle one has no lag."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from relay.broker.queues import DRAIN_QUEUES
from relay.process.metrics import PipelineLabels, SchedulerMetrics
from scheduler.chores import Pieces, pages
from scheduler.session import Session, Waiting
from scheduler.state import OwnedState

# Of one question. Each that is behind costs a look into its outbox.
PIPELINES = 20


class Measures:
    """In one session, of `owned`, which changes meanwhile."""

    def __init__(self, session: Session, metrics: SchedulerMetrics, owned: Mapping[str, OwnedState]) -> None:
        self._session = session
        self._metrics = metrics
        self._owned = owned
        self._at_rest: dict[str, PipelineLabels] = {}
        """Pipelines that were idle and not behind when they were last measured, and under which labels."""
        self._untaken: set[str] = set()

    def lag(self) -> Pieces:
        """Sets the metrics of all that are not idle, or were not when they were last measured."""
        self._at_rest = {name: labels for name, labels in self._at_rest.items() if name in self._owned}
        moved = [name for name, state in self._owned.items() if not self._rests(name, state)]
        yield
        for names in pages(moved, PIPELINES):
            self._measure([name for name in names if name in self._owned])
            yield

    def _rests(self, name: str, state: OwnedState) -> bool:
        return state.phase == "idle" and self._at_rest.get(name) == state.spec.labels

    def _measure(self, names: Sequence[str]) -> None:
        idle = {name for name in names if self._owned[name].phase == "idle"}
        behind = {row.name: row for row in self._session.lag(list(names))} if names else {}
        for name in names:
            state, row = self._owned[name], behind.get(name)
            labels = state.spec.labels
            self._metrics.pipeline_broken.labels(*labels).set(state.broken)
            self._metrics.lag_messages.labels(*labels).set(row.messages if row else 0)
            self._metrics.lag_seconds.labels(*labels).set((row and row.seconds) or 0)
            self._metrics.oldest_publisher_seconds.labels(*labels).set(row.publisher_seconds if row else 0)
            if name in idle and row is None:
                self._at_rest[name] = labels
            else:
                self._at_rest.pop(name, None)

    def emitted(self, name: str) -> None:
        """A drain of this pipeline was emitted."""
        self._untaken.add(name)

    def _waiting(self) -> list[OwnedState]:
        """Those of which no worker has taken a drain, as far as is known."""
        found = [
            state for name in self._untaken if (state := self._owned.get(name)) and state.untaken_since is not None
        ]
        self._untaken = {state.spec.name for state in found}
        return found

    def drains_waiting(self) -> None:
        """Counts the drains that no worker has started. Does not ask again about one that is known to have started."""
        waiting = [state for state in self._waiting() if state.phase == "draining"]
        started = self._session.started([state.drain for state in waiting]) if waiting else set()
        for state in waiting:
            if state.spec.name in started:
                state.taken()
        queues = [DRAIN_QUEUES[state.spec.labels.direction] for state in waiting if not state.started]
        for queue in DRAIN_QUEUES.values():
            self._metrics.drains_waiting.labels(queue).set(queues.count(queue))

    def waiting(self) -> dict[str, Waiting]:
        """The drains that no worker has taken, by queue; a pipeline counts once, however often it was emitted again."""
        now = time.monotonic()
        found: dict[str, list[float]] = defaultdict(list)
        for state in self._waiting():
            if state.untaken_since is not None:
                found[DRAIN_QUEUES[state.spec.labels.direction]].append(now - state.untaken_since)
        return {queue: Waiting(len(ages), round(max(ages), 1)) for queue, ages in found.items()}

    def forget(self) -> None:
        """The session is lost."""
        self._untaken.clear()
        for queue in DRAIN_QUEUES.values():
            self._metrics.drains_waiting.labels(queue).set(0)
