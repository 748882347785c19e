"""Where thousands of pipelines are at rest, most have no series; one that has something to tell always has."""

from collections import Counter
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from relay.process.metrics import PipelineLabels
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler import measures as measures_module
from scheduler.measures import Measures
from scheduler.state import OwnedState, Spec
from scheduler.statements import PipelineLag

AT_REST = 10


class Lags:
    """In place of the session: which pipelines are behind."""

    def __init__(self) -> None:
        self.behind: set[str] = set()

    def lag(self, names):
        return [PipelineLag(name, 5, 1.0, 0.0) for name in names if name in self.behind]


class Site:
    """A scheduler's pipelines, of which none is drained but by `drain`."""

    def __init__(self, pipelines: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(measures_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.lags, self.registry = Lags(), CollectorRegistry()
        self.metrics = SchedulerMetrics(self.registry)
        self.owned = {f"p{number}": self._asleep(f"p{number}") for number in range(pipelines)}
        self.measures = Measures(self.lags, self.metrics, self.owned)  # type: ignore[arg-type]

    def _asleep(self, name: str) -> OwnedState:
        state = OwnedState(Spec(name, "orders", 1, 1000, 1.0, PipelineLabels(name, "forward", "memory")))
        state.claimed(1, None, self.now)
        state.sleeps(self.now)
        return state

    def drain(self, name: str) -> None:
        """Has a drain that finds nothing."""
        state = self.owned[name]
        state.next_drain()
        self.metrics.wakeups.labels(*state.spec.labels, "bell").inc()
        state.emitted(self.now)
        self.measures.emitted(name)
        state.ended("idle", None, False, self.now)

    def measure(self, after: float = 5.0) -> set[str]:
        """Which pipelines have series after one more look."""
        self.now += after
        list(self.measures.lag())
        found = Counter(
            sample.labels["pipeline"] for metric in self.registry.collect() for sample in metric.samples
            if "pipeline" in sample.labels
        )  # fmt: skip
        return set(found)

    def lag(self, name: str) -> float | None:
        return self.registry.get_sample_value("tide_relay_lag_messages", self.owned[name].spec.labels._asdict())


@pytest.fixture
def many(monkeypatch) -> Site:
    monkeypatch.setattr(measures_module, "AT_REST", AT_REST)
    return Site(1000, monkeypatch)


def test_where_there_are_few_every_pipeline_has_series_however_long_it_rests(monkeypatch):
    few = Site(AT_REST, monkeypatch)
    assert few.measure() == set(few.owned)
    assert few.measure(after=1e6) == set(few.owned)


def test_of_many_that_sleep_from_the_start_most_never_have_series(many):
    assert len(many.measure()) == AT_REST
    assert len(generate_latest(many.registry)) < 20_000


def test_one_that_moved_has_series_at_zero_until_it_has_rested_for_long(many):
    many.measure()
    many.drain("p700")
    assert "p700" in many.measure()
    assert many.lag("p700") == 0
    for number in range(AT_REST):
        many.drain(f"p{800 + number}")
    assert "p700" in many.measure(), "an alert may hold its last value still"
    assert many.measure(after=measures_module.REST_SECONDS - 10) >= {"p700", "p800"}
    shown = many.measure(after=20)
    assert len(shown) == AT_REST and "p700" not in shown and "p800" in shown


def test_one_that_is_behind_or_broken_has_series_however_many_rest(many):
    many.lags.behind = {"p500"}
    many.drain("p501")
    many.owned["p501"].broken = True
    many.owned["p501"].ended("failed", 60.0, False, many.now)
    for _ in range(3):
        assert many.measure(after=1e6) > {"p500", "p501"}
    assert many.lag("p500") == 5
    many.lags.behind = set()
    many.measure()
    assert many.lag("p500") == 0


def test_one_without_series_that_moves_has_them_again_and_loses_them_again(many):
    many.measure()
    many.measure(after=1e6)
    assert many.lag("p900") is None
    many.drain("p900")
    many.lags.behind = {"p900"}
    assert "p900" in many.measure()
    many.lags.behind = set()
    many.drain("p900")
    many.measure()
    for number in range(AT_REST):
        many.drain(f"p{number}")
    many.measure()
    assert "p900" not in many.measure(after=1e6)
