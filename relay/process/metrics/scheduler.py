"""What a scheduler counts; see the table of `relay.process.metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from relay.process.metrics import P, PipelineLabels

WAKEUP_CAUSES = ("config", "lost", "bell", "timer", "schedule", "retry", "more", "again", "later")


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
