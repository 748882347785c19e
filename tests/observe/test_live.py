"""Each alert is raised by a real fault in a running fleet and ends when that is fixed; every panel has data."""

import re
from functools import partial

import pytest

from tests.observe.faults import FAULTS, maintenance_undone
from tests.observe.observed import PATIENCE_SECONDS, Observed, expression
from tests.observe.rules import alerts, expressions, named, panels, with_variables
from tests.waiting import wait_until


def judge(observed: Observed, name: str) -> None:
    """Not raised before the fault; raised by it, with its texts whole; over after it."""
    fault = FAULTS[name]
    for alert in fault.alerts:
        wait_until(partial(observed.is_quiet, alert, fault.labels), PATIENCE_SECONDS, f"{alert} is not raised")
    with fault.happens(observed):
        for alert in fault.alerts:
            raised = observed.wait_active(alert, fault.labels)
            texts = " ".join(raised["annotations"].values())
            assert all(word in texts for word in fault.labels.values()), texts
            assert not re.search(r"[{}<]|%!", texts), texts
    for alert in fault.alerts:
        observed.wait_over(alert, fault.labels)
    observed.seen.add(name)


@pytest.mark.parametrize("name", FAULTS)
def test_an_alert_is_raised_when(observed, name):
    judge(observed, name)


def test_retention_is_behind_while_no_worker_does_its_turn(observed):
    """An hour is too long to wait for: a few seconds instead, which are many turns of this fleet."""
    behind = re.sub(r"> 3600\b", "> 4", expression("TideRelayRetentionBehind"))
    assert behind != expression("TideRelayRetentionBehind")
    wait_until(lambda: not observed.prometheus.query(behind), PATIENCE_SECONDS, "turns are done")
    with maintenance_undone(observed):
        wait_until(lambda: observed.prometheus.query(behind), PATIENCE_SECONDS, "no turn is done")
    wait_until(lambda: not observed.prometheus.query(behind), PATIENCE_SECONDS, "turns are done again")


def test_a_queue_without_workers_does_not_move(observed):
    """By short windows, for drains have ended within the last minutes."""
    labels = {"queue": "tide.forward"}
    observed.wait_over("TideRelayNotMoving", labels)
    observed.workers.kill()
    observed.pipelines.publish("steady")
    wait_until(lambda: observed.query("TideRelayNotMoving", labels), PATIENCE_SECONDS, "drains wait, and none ends")
    observed.workers.start()
    observed.wait_over("TideRelayNotMoving", labels)


def test_every_alert_has_a_fault():
    faulty = {alert for fault in FAULTS.values() for alert in fault.alerts} | {"TideRelayRetentionBehind"}
    assert faulty == {alert["alert"] for alert in alerts()}


@pytest.fixture
def eventful(observed: Observed) -> Observed:
    """Everything has happened to it at least once."""
    for name in FAULTS:
        if name not in observed.seen:
            judge(observed, name)
    return observed


def exported(observed: Observed) -> dict[str, set[str]]:
    """Every metric of ours that Prometheus knows, and the labels of its series."""
    found: dict[str, set[str]] = {}
    for series in observed.prometheus.series("tide_.*"):
        found.setdefault(series["__name__"], set()).update(series)
    return found


def is_exported(observed: Observed, metric: str) -> bool:
    return metric in exported(observed)


def test_what_alerts_and_panels_name_is_exported_with_those_labels(eventful):
    for text in expressions():
        for metric, labels in named(text):
            # What has just happened comes with the next scrape.
            wait_until(partial(is_exported, eventful, metric), PATIENCE_SECONDS, f"{metric} is exported: {text}")
            given = exported(eventful)[metric]
            assert labels <= given, f"{metric} has no {labels - given}: {text}"


def test_every_panel_shows_something(eventful):
    for panel in panels():
        for target in panel["targets"]:
            text = with_variables(target["expr"])
            found = wait_until(
                partial(eventful.prometheus.history, text, 600), PATIENCE_SECONDS, f"{text} shows something"
            )
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert all(legend <= set(series) for series in found), f"{panel['title']}: {legend}, {found}"
