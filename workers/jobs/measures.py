"""What an engine counts. Wraps its steps, and is between none of them."""

from collections import Counter
from collections.abc import Sequence

from relay.jobs.models import EPOCH, Claimed
from relay.process.metrics import PipelineLabels
from relay.process.metrics.workers import observe_times, worker_metrics
from workers.jobs.queues import EndOfDrain
from workers.jobs.runner import Runner
from workers.jobs.store import Done

KINDS = {"p": "python", "h": "http", "d": "dramatiq", "c": "celery"}
OUTCOMES = {"s": "succeeded", "r": "retried", "d": "dead", "c": "cancelled", "b": "handed_back"}
BACKEND = "jobs"


class Measures:
    def trip(
        self,
        ends: Sequence[EndOfDrain],
        done: Sequence[Done],
        found: Sequence[tuple[str, Sequence[Claimed]]],
        began_at: float,
        runner: Runner,
    ) -> None:
        """`found` has the jobs that were claimed of each queue; they began at `began_at`, in `time.time()` seconds."""
        for end in ends:
            self.drained(end)
        self.ended(done)
        for queue, jobs in found:
            self.claimed(queue, jobs, began_at)
        self.slots(runner)

    def drained(self, end: EndOfDrain) -> None:
        labels = PipelineLabels(end.drain.pipeline, "jobs", BACKEND)
        worker_metrics().drains.labels(*labels, end.result.outcome).inc()

    def claimed(self, queue: str, jobs: Sequence[Claimed], began_at: float) -> None:
        """The wait is that of the job which has waited longest, of each claim."""
        metrics = worker_metrics()
        metrics.jobs_claimed.labels(queue).inc(len(jobs))
        oldest = EPOCH.timestamp() + min(job.due_us for job in jobs) / 1e6
        metrics.job_wait_seconds.labels(queue).observe(max(0.0, began_at - oldest))

    def ended(self, done: Sequence[Done]) -> None:
        metrics = worker_metrics()
        alike = Counter([(each.queue.name, each.ended.outcome, each.claimed.kind, each.ms) for each in done])
        for (queue, outcome, kind, ms), number in alike.items():
            metrics.jobs_ended.labels(queue, OUTCOMES[outcome]).inc(number)
            observe_times(metrics.job_seconds.labels(queue, KINDS.get(kind, "other")), ms / 1000, number)

    def slots(self, runner: Runner) -> None:
        metrics = worker_metrics()
        for way, slots in runner.slots.items():
            for state in ("free", "running", "waiting", "stuck"):
                metrics.job_slots.labels(way, state).set(getattr(slots, state))
        for queue, number in runner.unknown.counts.items():
            metrics.jobs_unknown.labels(queue).inc(number)
        runner.unknown.counts.clear()
