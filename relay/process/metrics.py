"""Every metric, in one table. docs/reference/metrics.md holds the same one; a test keeps table, docs and code equal.

========================================  =========  =========  =========  ===========================================
name                                      kind       labels     served by  meaning
========================================  =========  =========  =========  ===========================================
tide_relay_messages_published_total       counter    P          workers    messages that the sink confirmed
tide_relay_messages_received_total        counter    P          workers    messages that were new to an inbox
tide_relay_duplicates_total               counter    P          workers    received messages that an inbox already had
tide_relay_failures_total                 counter    P, code    workers    failures, temporary and permanent, by code
tide_relay_dead_letters_total             counter    P          workers    messages that became dead letters
tide_relay_drains_total                   counter    P, outcome workers    drains that ended, by outcome
tide_relay_publish_seconds                histogram  P          workers    time of one publish of a batch
tide_relay_write_seconds                  histogram  P          workers    wait for the commit of a batch in an inbox
tide_relay_delivery_seconds               histogram  P          workers    commit to delivery, oldest message of a batch
tide_relay_stale_drains_total             counter    pipeline   workers    drain messages dropped: too old, or fenced
tide_relay_refused_messages_total         counter    code       workers    queue messages that no scheduler sent
tide_relay_drains_running                 gauge      (none)     workers    drains in progress, over all processes
tide_relay_retention_partitions_total     counter    outbox, action workers partitions of outboxes truncated, or dropped
tide_relay_retention_rows_total           counter    what       workers    old rows removed from elsewhere
tide_relay_retention_lost_total           counter    outbox     workers    messages removed before a group settled them
tide_jobs_claimed_total                   counter    queue      workers    jobs that were claimed
tide_jobs_ended_total                     counter    queue, outcome workers runs of jobs that ended, by outcome
tide_jobs_unknown_total                   counter    queue      workers    jobs handed back: no handler has their name
tide_job_seconds                          histogram  queue, kind workers   time of one run of a job
tide_job_wait_seconds                     histogram  queue      workers    due to claimed, the oldest job of a claim
tide_job_slots                            gauge      way, state workers    slots: free, running, stuck; jobs that wait
tide_stream_refresh_seconds               histogram  stream_table, strategy workers time of one refresh, by strategy
tide_stream_rows_total                    counter    stream_table, change workers rows that refreshes wrote, by change
tide_stream_fallbacks_total               counter    stream_table, reason workers computed as a whole, by why
tide_relay_hold_seconds_left              gauge      outbox, consumer_group scheduler until unsettled messages may go
tide_relay_inbox_dead_messages            gauge      inbox      scheduler  dead messages of an inbox
tide_jobs_open                            gauge      queue, state scheduler jobs that are due, scheduled, leased, dead
tide_job_oldest_seconds                   gauge      queue      scheduler  how long the oldest due job has been due
tide_job_gaps                             gauge      queue      scheduler  ids passed whose transactions are open
tide_stream_staleness_seconds             gauge      stream_table scheduler age of what it shows; 0: it equals its query
tide_stream_overdue_seconds               gauge      stream_table scheduler how long it should have been refreshed
tide_stream_failures                      gauge      stream_table scheduler refreshes in a row that PostgreSQL refused
tide_relay_lag_messages                   gauge      P          scheduler  messages not settled yet
tide_relay_lag_seconds                    gauge      P          scheduler  age of the oldest message not settled
tide_relay_pipeline_broken                gauge      P          scheduler  1 if only a person can fix what fails, or 0
tide_relay_pipelines_owned                gauge      (none)     scheduler  pipelines this scheduler owns
tide_relay_pipelines_invalid              gauge      (none)     scheduler  pipelines enabled, but invalid
tide_relay_pipelines_unowned              gauge      relay_group_id scheduler  enabled pipelines without an owner
tide_relay_drains_waiting                 gauge      queue      scheduler  drains it emitted that have not started
tide_relay_wakeups_total                  counter    P, cause   scheduler  why a pipeline became due
tide_relay_horizon_stalls_total           counter    P          scheduler  drains that found only messages still open
tide_relay_oldest_publisher_seconds       gauge      P          scheduler  age of the outbox's oldest open publisher
tide_relay_lost_drains_total              counter    P          scheduler  drains that fell silent and were abandoned
tide_relay_epochs_total                   counter    (none)     scheduler  pipelines of which it became the owner
tide_relay_broker_errors_total            counter    code       scheduler  drains that the broker did not take
tide_relay_database_losses_total          counter    (none)     scheduler  times the session and all ownership was lost
tide_relay_notifications_ignored_total    counter    channel    scheduler  notifications without a name, or false
tide_relay_broker_up                      gauge      (none)     scheduler  1 if the broker answered last, else 0
tide_relay_loop_age_seconds               gauge      (none)     scheduler  since PostgreSQL last answered its loop
tide_relay_maintenance_age_seconds        gauge      (none)     scheduler  since maintenance was last done whole
========================================  =========  =========  =========  ===========================================

P stands for `pipeline`, `direction` (forward, reverse, jobs, stream) and `sink_type` (of a reverse pipeline: its
`source_type`; of a queue of jobs: jobs; of a stream table: stream).
Times are in seconds.
Actions of retention: truncated, dropped; what it removes elsewhere: inbox, dead_letters, history.
Outcomes of a drain: more, idle, again, later, failed, fenced.
Codes of refused messages: too_large, undecodable, actor, arguments, delayed, no_message.
Outcomes of a job: succeeded, retried, dead, cancelled, handed_back. Kinds: python, http, dramatiq, celery.
States of slots: running, waiting, stuck; of open jobs: due, scheduled, leased, dead.
Strategies of a refresh: linear, keyed, two states, groups, full; of a query with nodes several, joined by " + ".
Changes of rows: inserted, updated, deleted.
Reasons of a fallback: see `relay.drains.fallbacks`.
Causes of a wake-up: bell, timer, again, later, more, retry, config, lost.

Workers must call `relay.process.multiprocess.prepare_multiprocess` before anything imports this module.
"""

from bisect import bisect_left
from functools import cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase


class PipelineLabels(NamedTuple):
    """The labels P, in order: `metric.labels(*labels)`."""

    pipeline: str
    direction: str
    sink_type: str


P = PipelineLabels._fields

WAKEUP_CAUSES = ("config", "lost", "bell", "timer", "schedule", "retry", "more", "again", "later")

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


class SchedulerMetrics:
    """What a scheduler counts, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.lag_messages = Gauge("tide_relay_lag_messages", "Messages not settled yet.", P, registry=registry)
        self.lag_seconds = Gauge(
            "tide_relay_lag_seconds", "Age of the oldest message not settled.", P, registry=registry
        )
        self.hold_seconds_left = Gauge(
            "tide_relay_hold_seconds_left",
            "Time until messages that a consumer group has not settled may be removed.",
            ("outbox", "consumer_group"),
            registry=registry,
        )
        self.pipeline_broken = Gauge(
            "tide_relay_pipeline_broken",
            "Whether the last drain failed in a way that does not recover automatically.",
            P,
            registry=registry,
        )
        self.pipelines_owned = Gauge("tide_relay_pipelines_owned", "Pipelines this scheduler owns.", registry=registry)
        self.pipelines_invalid = Gauge(
            "tide_relay_pipelines_invalid", "Enabled pipelines with an invalid configuration.", registry=registry
        )
        self.pipelines_unowned = Gauge(
            "tide_relay_pipelines_unowned",
            "Enabled pipelines that no living scheduler owns, by the group that they name.",
            ("relay_group_id",),
            registry=registry,
        )
        self.drains_waiting = Gauge(
            "tide_relay_drains_waiting",
            "Drains of this scheduler that no worker has started.",
            ("queue",),
            registry=registry,
        )
        self.wakeups = Counter(
            "tide_relay_wakeups_total", "Why a pipeline became due.", (*P, "cause"), registry=registry
        )
        self.horizon_stalls = Counter(
            "tide_relay_horizon_stalls_total", "Drains that found only messages still open.", P, registry=registry
        )
        self.oldest_publisher_seconds = Gauge(
            "tide_relay_oldest_publisher_seconds",
            "Age of the oldest open publisher of the outbox.",
            P,
            registry=registry,
        )
        self.lost_drains = Counter(
            "tide_relay_lost_drains_total", "Drains that fell silent and were abandoned.", P, registry=registry
        )
        self.epochs = Counter(
            "tide_relay_epochs_total", "Pipelines of which this scheduler became the owner.", registry=registry
        )
        self.broker_errors = Counter(
            "tide_relay_broker_errors_total", "Drains that the broker did not take.", ("code",), registry=registry
        )
        self.database_losses = Counter(
            "tide_relay_database_losses_total",
            "Times the session, and with it all ownership, was lost.",
            registry=registry,
        )
        self.notifications_ignored = Counter(
            "tide_relay_notifications_ignored_total",
            "Notifications without a name, or of a drain that was not over.",
            ("channel",),
            registry=registry,
        )
        self.broker_up = Gauge("tide_relay_broker_up", "Whether the broker answered last.", registry=registry)
        self.inbox_dead_messages = Gauge(
            "tide_relay_inbox_dead_messages", "Dead messages of an inbox.", ("inbox",), registry=registry
        )
        self.jobs_open = Gauge(
            "tide_jobs_open",
            "Jobs of a queue that have not ended, and dead ones, by state.",
            ("queue", "state"),
            registry=registry,
        )
        self.job_oldest_seconds = Gauge(
            "tide_job_oldest_seconds",
            "How long the oldest due job of a queue has been due.",
            ("queue",),
            registry=registry,
        )
        self.job_gaps = Gauge(
            "tide_job_gaps",
            "Ids that claims have passed and open transactions may still use.",
            ("queue",),
            registry=registry,
        )
        self.stream_staleness_seconds = Gauge(
            "tide_stream_staleness_seconds",
            "How old what a stream table shows is at most; 0 while it equals its query.",
            ("stream_table",),
            registry=registry,
        )
        self.stream_overdue_seconds = Gauge(
            "tide_stream_overdue_seconds",
            "For how long a stream table should have been refreshed by its schedule; 0 if it is not due.",
            ("stream_table",),
            registry=registry,
        )
        self.stream_failures = Gauge(
            "tide_stream_failures",
            "Refreshes of a stream table in a row that PostgreSQL refused.",
            ("stream_table",),
            registry=registry,
        )
        self.loop_age_seconds = Gauge(
            "tide_relay_loop_age_seconds", "Time since PostgreSQL last answered the loop.", registry=registry
        )
        self.maintenance_age_seconds = Gauge(
            "tide_relay_maintenance_age_seconds", "Time since maintenance was last done whole.", registry=registry
        )

    def forget(self, labels: PipelineLabels) -> None:
        """Removes every series of a pipeline: it is gone, or is owned by another now, and a stale lag would be a lie;
        or it is one of thousands, and has been at rest for long.
        """
        for metric in vars(self).values():
            if isinstance(metric, MetricWrapperBase) and metric._labelnames[: len(P)] == P:
                # Not by a part of the labels: that would look at the series of every pipeline.
                for rest in [()] if len(metric._labelnames) == len(P) else [(cause,) for cause in WAKEUP_CAUSES]:
                    metric.remove(*labels, *rest)


def observe_times(histogram: Histogram, value: float, times: int) -> None:
    """What so many calls of `observe` do, at the price of one: the library has no call for it."""
    histogram._sum.inc(value * times)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)


@cache
def worker_metrics() -> WorkerMetrics:
    """The metrics of this worker process."""
    return WorkerMetrics(CollectorRegistry())
