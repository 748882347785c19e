"""What a scheduler measures of the pipelines that it owns. Asks about those that moved: an idle one has no lag.

The lag of a pipeline is that of its slowest lane.
Where thousands are at rest, most of them have no series: the answer to each scrape would be many megabytes of zeros.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from relay.broker.queues import DRAIN_QUEUES
from relay.process.metrics import PipelineLabels
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.chores import Pieces, pages
from scheduler.session import Session, Waiting
from scheduler.state import OwnedState
from scheduler.statements import PipelineLag

# Of one question. Each that is behind costs a look into its outbox.
PIPELINES = 20
# At rest, and with series all the same. Of more, those that have rested longest have none; but they must have been seen
# at zero for so long that no alert holds an older value.
AT_REST = 1000
REST_SECONDS = 600.0
# Of one piece.
HIDDEN = 100


class Measures:
    """In one session, of `owned`, which changes meanwhile."""

    def __init__(self, session: Session, metrics: SchedulerMetrics, owned: Mapping[str, OwnedState]) -> None:
        self._session = session
        self._metrics = metrics
        self._owned = owned
        self._at_rest: dict[str, PipelineLabels] = {}
        """Pipelines that were idle and not behind when they were last measured, and under which labels."""
        self._shown: dict[str, float] = {}
        """Those of them that have series, and since when they are at rest; the longest first."""
        self._series: set[str] = set()
        """All that have series."""
        self._untaken: set[str] = set()
        self._lags: dict[str, PipelineLag] = {}
        """Of those that were behind, by lane."""

    def lag(self) -> Pieces:
        """Sets the metrics of all that are not idle, or were not when they were last measured."""
        self._at_rest = {name: labels for name, labels in self._at_rest.items() if name in self._owned}
        self._shown = {name: since for name, since in self._shown.items() if name in self._at_rest}
        self._series &= self._owned.keys()
        self._lags = {name: lag for name, lag in self._lags.items() if name in self._owned}
        moved = [name for name, state in self._owned.items() if not self._rests(name, state)]
        yield
        for names in pages(moved, PIPELINES):
            self._measure([name for name in names if name in self._owned])
            yield
        yield from self._hide()

    def _rests(self, name: str, state: OwnedState) -> bool:
        return state.phase == "idle" and self._at_rest.get(name) == state.spec.labels

    def _measure(self, names: Sequence[str]) -> None:
        idle = {name for name in names if self._owned[name].phase == "idle"}
        behind = {row.name: row for row in self._session.lag(list(names))} if names else {}
        for name in names:
            rests = name in idle and name not in behind
            if not rests or name in self._series or len(self._shown) < AT_REST:
                self._show(self._owned[name], behind.get(name))
            self._shown.pop(name, None)
            if rests:
                self._at_rest[name] = self._owned[name].spec.labels
                # Lanes share their series, and few pipelines have them.
                hidden_later = name in self._series and self._owned[name].spec.lanes == 1
                self._shown |= {name: time.monotonic()} if hidden_later else {}
            else:
                self._at_rest.pop(name, None)

    def _show(self, state: OwnedState, row: PipelineLag | None) -> None:
        labels = state.spec.labels
        self._series.add(state.spec.name)
        self._lags.pop(state.spec.name, None)
        self._lags |= {state.spec.name: row} if row else {}
        lags = [self._lags[name] for name in state.spec.lane_names() if name in self._lags]
        self.show_broken(state)
        self._metrics.lag_messages.labels(*labels).set(max((lag.messages for lag in lags), default=0))
        self._metrics.lag_seconds.labels(*labels).set(max((lag.seconds or 0 for lag in lags), default=0))
        oldest = max((lag.publisher_seconds for lag in lags), default=0)
        self._metrics.oldest_publisher_seconds.labels(*labels).set(oldest)

    def show_broken(self, state: OwnedState) -> None:
        """A pipeline is broken if one of its lanes is."""
        lanes = [self._owned[name] for name in state.spec.lane_names() if name in self._owned]
        self._metrics.pipeline_broken.labels(*state.spec.labels).set(any(lane.broken for lane in lanes))

    def forget_series(self, state: OwnedState) -> None:
        """It is not owned any more. Its pipeline may be, by other lanes."""
        if not any(name in self._owned for name in state.spec.lane_names()):
            self._metrics.forget(state.spec.labels)

    def _hide(self) -> Pieces:
        """Removes the series of those that have been at rest for long, where many are."""
        until = time.monotonic() - REST_SECONDS
        for names in pages(list(self._shown)[: max(0, len(self._shown) - AT_REST)], HIDDEN):
            for name in names:
                if self._shown.get(name, until) < until and name in self._owned:
                    del self._shown[name]
                    self._series.discard(name)
                    self._metrics.forget(self._at_rest[name])
            yield

    def emitted(self, name: str) -> None:
        """A drain of this pipeline was emitted."""
        self._untaken.add(name)
        self._series.add(name)
        self._at_rest.pop(name, None)
        self._shown.pop(name, None)

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
        started = self._session.started({state.spec.name: state.drain for state in waiting}) if waiting else set()
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
        self._at_rest.clear()
        self._shown.clear()
        self._series.clear()
        self._lags.clear()
        for queue in DRAIN_QUEUES.values():
            self._metrics.drains_waiting.labels(queue).set(0)
