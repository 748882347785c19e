"""Metrics: the tables tell the truth, and no series outlives its pipeline."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from relay.process import metrics
from relay.process.metrics import P, PipelineLabels
from relay.process.metrics.scheduler import WAKEUP_CAUSES, SchedulerMetrics
from relay.process.metrics.workers import MOST_STALE, WorkerMetrics, worker_metrics
from relay.web import metrics as api_metrics
from relay.web.metrics import ApiMetrics
from tests.paths import ROOT

DOCS = ROOT / "docs" / "reference" / "metrics.md"
ORDERS = PipelineLabels("orders", "forward", "nats")
USERS = PipelineLabels("users", "forward", "file")


@pytest.fixture
def scheduler():
    return SchedulerMetrics(CollectorRegistry())


def metrics_of(kind: type) -> list[MetricWrapperBase]:
    return [metric for metric in vars(kind(CollectorRegistry())).values() if isinstance(metric, MetricWrapperBase)]


def row(metric: MetricWrapperBase, server: str) -> tuple[str, str, str, str]:
    """As the tables write it: the name as it is served, the kind, the labels (P for its three), who serves it."""
    labels = (
        [name for name in metric._labelnames if name not in P] if metric._labelnames[:3] == P else metric._labelnames
    )
    shown = ", ".join([*(["P"] if metric._labelnames[:3] == P else []), *labels]) or "(none)"
    suffix = "_total" if metric._type == "counter" else ""
    return metric._name + suffix, str(metric._type), shown, server


def rows_of_the_code() -> set[tuple[str, str, str, str]]:
    workers = {row(metric, "workers") for metric in metrics_of(WorkerMetrics)}
    return workers | {row(metric, "scheduler") for metric in metrics_of(SchedulerMetrics)}


def test_the_table_of_the_module_lists_every_metric():
    rows = re.findall(
        r"^(tide_\w+) +(\w+) +(\S+(?:, \w+)?) +(workers|scheduler) +\S", metrics.__doc__ or "", re.MULTILINE
    )
    assert set(rows) == rows_of_the_code()
    assert len(rows) == len(set(rows))


def test_the_table_of_the_docs_lists_every_metric():
    rows = re.findall(r"^\| `(tide_\w+)` \| (\w+) \| ([^|]+) \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert {(name, kind, labels.replace("`", ""), server) for name, kind, labels, server in rows} == (
        rows_of_the_code() | {row(metric, "api") for metric in metrics_of(ApiMetrics)}
    )


def test_the_table_of_the_api_lists_every_metric():
    rows = re.findall(r"^(tide_relay_\w+) +(\w+) +([\w()]+(?:, \w+)?) +\S", api_metrics.__doc__ or "", re.MULTILINE)
    assert {(*found, "api") for found in rows} == {row(metric, "api") for metric in metrics_of(ApiMetrics)}


def test_every_metric_has_our_prefix_and_says_what_it_is():
    for metric in metrics_of(WorkerMetrics) + metrics_of(SchedulerMetrics):
        assert metric._name.startswith(("tide_relay_", "tide_job_", "tide_jobs_", "tide_stream_"))
        assert metric._documentation.endswith(".")


def test_a_pipeline_that_is_gone_leaves_no_series_and_others_keep_theirs(scheduler):
    for labels in (ORDERS, USERS):
        scheduler.lag_messages.labels(*labels).set(7)
        scheduler.wakeups.labels(*labels, "bell").inc()
        scheduler.wakeups.labels(*labels, "timer").inc()
    scheduler.broker_errors.labels("timeout").inc()
    for cause in WAKEUP_CAUSES:
        scheduler.wakeups.labels(*ORDERS, cause).inc()
    scheduler.forget(ORDERS)
    scheduler.forget(PipelineLabels("never-there", "forward", "file"))
    text = generate_latest(scheduler.registry).decode()
    assert 'pipeline="orders"' not in text
    assert 'tide_relay_wakeups_total{cause="timer",direction="forward",pipeline="users",sink_type="file"} 1.0' in text
    assert 'tide_relay_broker_errors_total{code="timeout"} 1.0' in text


def test_workers_and_scheduler_serve_their_own(scheduler):
    text = generate_latest(scheduler.registry).decode()
    assert "tide_relay_lag_seconds" in text and "process_resident_memory_bytes" in text
    assert "tide_relay_publish_seconds" not in text


def test_a_process_has_one_set_of_worker_metrics():
    assert worker_metrics() is worker_metrics()


def test_forged_names_of_pipelines_do_not_make_series_without_limit():
    registry = CollectorRegistry()
    counted = WorkerMetrics(registry)
    for number in range(3 * MOST_STALE):
        counted.count_stale(f"forged-{number}")
    shown = re.findall(rb"stale_drains_total\{pipeline=\"(.*?)\"\} (.*)", generate_latest(registry))
    assert len(shown) == MOST_STALE + 1
    assert dict(shown)[b"(other)"] == b"%.1f" % (2 * MOST_STALE)
    counted.count_stale("forged-0")
    assert b'pipeline="forged-0"} 2.0' in generate_latest(registry)
