"""What an engine counts. Wraps its steps, and is between none of them."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from relay.process.metrics import PipelineLabels, worker_metrics
from workers.jobs.queues import EndOfDrain
from workers.jobs.runner import Runner
from workers.jobs.store import Done

KINDS = {"p": "python", "h": "http", "d": "dramatiq", "c": "celery"}
OUTCOMES = {"s": "succeeded", "r": "retried", "d": "dead", "c": "cancelled", "b": "handed_back"}
BACKEND = "jobs"
_DUE_AT = 9


class Measures:
    def drained(self, end: EndOfDrain) -> None:
        labels = PipelineLabels(end.drain.pipeline, "jobs", BACKEND)
        worker_metrics().drains.labels(*labels, end.result.outcome).inc()

    def claimed(self, queue: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """The wait is that of the job which has waited longest, of each claim."""
        metrics = worker_metrics()
        metrics.jobs_claimed.labels(queue).inc(len(rows))
        oldest = min(row[_DUE_AT] for row in rows).timestamp()
        metrics.job_wait_seconds.labels(queue).observe(max(0.0, time.time() - oldest))

    def ended(self, done: Sequence[Done]) -> None:
        metrics = worker_metrics()
        for (queue, outcome), number in Counter((each.queue.name, each.ended.outcome) for each in done).items():
            metrics.jobs_ended.labels(queue, OUTCOMES[outcome]).inc(number)
        for each in done:
            metrics.job_seconds.labels(each.queue.name, KINDS.get(each.kind, "other")).observe(each.ms / 1000)

    def slots(self, runner: Runner) -> None:
        metrics = worker_metrics()
        for way, slots in runner.slots.items():
            for state in ("free", "running", "waiting", "stuck"):
                metrics.job_slots.labels(way, state).set(getattr(slots, state))
        for queue, number in runner.unknown.counts.items():
            metrics.jobs_unknown.labels(queue).inc(number)
        runner.unknown.counts.clear()
