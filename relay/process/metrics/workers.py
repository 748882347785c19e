"""What the worker processes count; see the table of `relay.process.metrics`.

Workers must call `relay.process.multiprocess.prepare_multiprocess` before anything imports this module.
"""

from bisect import bisect_left
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from relay.process.metrics import P

# From a local file to a slow webhook.
PUBLISH_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# The targets, 10 ms and 50 ms, are bounds; the long end shows a backlog being processed.
DELIVERY_BUCKETS_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
# From a handler that does nothing to one that takes an hour.
JOB_BUCKETS_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

# From a few changed rows to a query over everything. Few: each stream table has them all, for each strategy.
REFRESH_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.5, 10, 60, 600)

# Pipelines with a stale drain that have a series of their own.
MOST_STALE = 1000


class WorkerMetrics:
    """What the worker processes count. One for each process: see `worker_metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages_published = Counter(
            "tide_relay_messages_published_total", "Messages that the sink confirmed.", P, registry=registry
        )
        self.messages_received = Counter(
            "tide_relay_messages_received_total", "Messages that were new to an inbox.", P, registry=registry
        )
        self.duplicates = Counter(
            "tide_relay_duplicates_total", "Received messages that an inbox already had.", P, registry=registry
        )
        self.failures = Counter(
            "tide_relay_failures_total", "Failures, temporary and permanent, by code.", (*P, "code"), registry=registry
        )
        self.dead_letters = Counter(
            "tide_relay_dead_letters_total", "Messages that became dead letters.", P, registry=registry
        )
        self.drains = Counter(
            "tide_relay_drains_total", "Drains that ended, by outcome.", (*P, "outcome"), registry=registry
        )
        self.publish_seconds = Histogram(
            "tide_relay_publish_seconds",
            "Time of one publish of a batch.",
            P,
            registry=registry,
            buckets=PUBLISH_BUCKETS_SECONDS,
        )
        self.write_seconds = Histogram(
            "tide_relay_write_seconds",
            "Wait for the commit of a batch in an inbox.",
            P,
            registry=registry,
            buckets=PUBLISH_BUCKETS_SECONDS,
        )
        self.delivery_seconds = Histogram(
            "tide_relay_delivery_seconds",
            "Commit to delivery, of the oldest message of a batch.",
            P,
            registry=registry,
            buckets=DELIVERY_BUCKETS_SECONDS,
        )
        self._stale: set[str] = set()
        self.stale_drains = Counter(
            "tide_relay_stale_drains_total",
            "Drain messages dropped because they were too old or fenced.",
            ("pipeline",),
            registry=registry,
        )
        self.refused = Counter(
            "tide_relay_refused_messages_total",
            "Messages of a queue that no scheduler sent, by what is wrong.",
            ("code",),
            registry=registry,
        )
        self.drains_running = Gauge(
            "tide_relay_drains_running",
            "Drains in progress, over all processes.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.retention_partitions = Counter(
            "tide_relay_retention_partitions_total",
            "Partitions of outboxes that retention has truncated, or dropped.",
            ("outbox", "action"),
            registry=registry,
        )
        self.retention_rows = Counter(
            "tide_relay_retention_rows_total",
            "Old rows that retention has removed from inboxes, dead letters and history.",
            ("what",),
            registry=registry,
        )
        self.retention_lost = Counter(
            "tide_relay_retention_lost_total",
            "Messages that were removed before a consumer group had settled them.",
            ("outbox",),
            registry=registry,
        )
        self.jobs_claimed = Counter("tide_jobs_claimed_total", "Jobs that were claimed.", ("queue",), registry=registry)
        self.jobs_ended = Counter(
            "tide_jobs_ended_total", "Runs of jobs that ended, by outcome.", ("queue", "outcome"), registry=registry
        )
        self.jobs_unknown = Counter(
            "tide_jobs_unknown_total",
            "Jobs that were handed back because no handler of the process has their name.",
            ("queue",),
            registry=registry,
        )
        self.job_seconds = Histogram(
            "tide_job_seconds",
            "Time of one run of a job.",
            ("queue", "kind"),
            registry=registry,
            buckets=JOB_BUCKETS_SECONDS,
        )
        self.job_wait_seconds = Histogram(
            "tide_job_wait_seconds",
            "From due to claimed, of the oldest job of a claim.",
            ("queue",),
            registry=registry,
            buckets=DELIVERY_BUCKETS_SECONDS,
        )
        self.job_slots = Gauge(
            "tide_job_slots",
            "Slots that are free, that run a job, that handlers hold which do not end; and jobs that wait for a slot.",
            ("way", "state"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.stream_refresh_seconds = Histogram(
            "tide_stream_refresh_seconds",
            "Time of one refresh of a stream table that found something to do.",
            ("stream_table", "strategy"),
            registry=registry,
            buckets=REFRESH_BUCKETS_SECONDS,
        )
        self.stream_rows = Counter(
            "tide_stream_rows_total",
            "Rows that refreshes have inserted into a stream table, updated, or deleted.",
            ("stream_table", "change"),
            registry=registry,
        )
        self.stream_fallbacks = Counter(
            "tide_stream_fallbacks_total",
            "Refreshes that computed the whole query although their mode is not FULL, by why.",
            ("stream_table", "reason"),
            registry=registry,
        )

    def count_stale(self, pipeline: str) -> None:
        """Names in queue messages may be forged, and each is a series that stays: there is room for so many."""
        if pipeline not in self._stale:
            pipeline = pipeline if len(self._stale) < MOST_STALE else "(other)"
            self._stale.add(pipeline)
        self.stale_drains.labels(pipeline).inc()


def observe_times(histogram: Histogram, value: float, times: int) -> None:
    """What so many calls of `observe` do, at the price of one: the library has no call for it."""
    histogram._sum.inc(value * times)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)


@cache
def worker_metrics() -> WorkerMetrics:
    """The metrics of this worker process."""
    return WorkerMetrics(CollectorRegistry())
