"""What `relay api` treats as a reason to be restarted, and what not."""

import json
import threading

import pytest
from prometheus_client import CollectorRegistry

from relay.process.stop import Stop
from relay.settings import Settings
from relay.web.health import ApiHealth
from relay.web.metrics import ApiMetrics
from relay.web.webhooks.hooks import Hooks
from relay.web.webhooks.writer import Writer


class Parts:
    def __init__(self, stop: Stop) -> None:
        settings = Settings.load(postgres_url="postgresql://not-used")
        self.hooks, self.writer = Hooks(settings, stop), Writer(settings, ApiMetrics(CollectorRegistry()))
        self.health = ApiHealth(self.hooks, self.writer, stop)


@pytest.fixture
def stop():
    with Stop() as stop:
        yield stop


@pytest.fixture
def parts(stop):
    """All is well."""
    parts = Parts(stop)
    parts.hooks.trouble = None
    parts.hooks.loaded.set()
    return parts


def said(answer):
    body = json.loads(answer.body)
    return answer.status, body.get("status", body.get("ready")), body.get("reasons")


def ended(name):
    thread = threading.Thread(target=lambda: None, name=name)
    thread.start()
    thread.join()
    return thread


def test_one_that_is_well_says_so(parts):
    assert said(parts.health.health()) == (200, "healthy", None)
    assert said(parts.health.ready()) == (200, True, None)


@pytest.mark.parametrize("part", ["hooks", "writer"])
def test_trouble_outside_is_told_in_private_and_it_takes_requests_all_the_same(parts, part):
    getattr(parts, part).trouble = "PostgreSQL: gone"
    assert said(parts.health.health()) == (200, "degraded", ["PostgreSQL: gone"])
    assert said(parts.health.health(public=True)) == (200, "degraded", None)
    assert said(parts.health.ready()) == (200, True, None)


@pytest.mark.parametrize("name", ["hooks", "writer"])
def test_a_thread_that_has_ended_is_a_reason_for_a_new_start(parts, name):
    alive = threading.current_thread()
    parts.health.watch(alive)
    assert said(parts.health.health()) == (200, "healthy", None)
    parts.health.watch(ended(name))
    reasons = [f"the thread '{name}' has ended; the log says why"]
    assert said(parts.health.health()) == (503, "unhealthy", reasons)
    assert said(parts.health.ready()) == (503, False, reasons)
    assert said(parts.health.health(public=True)) == (503, "unhealthy", None)
    assert said(parts.health.ready(public=True)) == (503, False, None)


def test_while_it_stops_threads_may_end(parts, stop):
    parts.health.watch(ended("hooks"))
    stop.set()
    assert said(parts.health.health()) == (200, "healthy", None)
    assert said(parts.health.ready()) == (503, False, ["it is stopping"])


def test_it_takes_no_requests_before_it_knows_its_pipelines(stop):
    health = Parts(stop).health
    assert said(health.health()) == (200, "degraded", ["the pipelines have not been read yet"])
    assert said(health.ready()) == (503, False, ["the pipelines have not been read yet"])
