"""Asking servers outside: rarely, one at a time, and never for long. And what of it is a reason to restart."""

import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from relay.broker.factory import make_broker
from relay.errors import NotConnected
from relay.process import health
from relay.process.health import Probe, troubles
from relay.process.metrics.scheduler import SchedulerMetrics
from relay.process.stop import Stop
from relay.settings import Settings
from scheduler.main import Scheduler
from tests.waiting import wait_until


def refuse() -> None:
    raise NotConnected("PostgreSQL: gone")


def test_an_answer_is_kept_for_a_while(monkeypatch):
    asked = []
    probe = Probe("PostgreSQL", lambda: asked.append(1))
    assert troubles([probe]) == troubles([probe]) == []
    assert len(asked) == 1
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    assert troubles([probe]) == []
    assert len(asked) == 2


def test_what_is_wrong_is_told():
    assert troubles([Probe("PostgreSQL", refuse), Probe("the broker", lambda: None)]) == ["PostgreSQL: gone"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_trouble_and_not_health():
    def ask() -> None:
        raise RuntimeError("a bug")

    assert troubles([Probe("PostgreSQL", ask)]) == ["PostgreSQL could not be checked: the log says why"]
    # Else the end of the thread is noticed in another test.
    wait_until(lambda: not any(thread.name == "probe-PostgreSQL" for thread in threading.enumerate()), what="it ends")


def test_one_that_does_not_answer_is_asked_once_and_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    asked, answer = [], threading.Event()

    def ask() -> None:
        asked.append(1)
        answer.wait(60)

    probes = [Probe("PostgreSQL", ask)]
    for _ in range(3):
        assert troubles(probes) == ["PostgreSQL does not answer"]
    assert len(asked) == 1
    answer.set()
    wait_until(lambda: troubles(probes) == [], what="it answers")


def test_a_scheduler_whose_loop_is_stuck_is_unhealthy_and_one_without_servers_is_not():
    settings = Settings.load(postgres_url="postgresql://not-used")
    with Stop() as stop:
        scheduler = Scheduler(settings, make_broker(settings.broker_url), SchedulerMetrics(CollectorRegistry()), stop)
        alone = scheduler.health()
        assert alone.failures == ()
        assert alone.troubles == ("not connected to PostgreSQL yet", "the broker has not been asked yet")
        scheduler._moved_at = time.monotonic() - 1000
        assert scheduler.health().failures == ("the loop has been silent for 1000 seconds",)
