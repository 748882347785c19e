"""The chart's own arguments and environment: one backlog under more and more worker processes, and a scheduler that is
killed.

Throughput is against one process of the same run. PostgreSQL and the sinks are on the same cores: what is bound by them
grows until they are used, what is bound by waiting grows beyond.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backends import webhook
from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack, wait_until
from tests.chart.api_server import api_server
from tests.chart.discovery import Object
from tests.chart.helm import Helm, engine
from tests.chart.running import PodProcess, Pods, pods_in
from tests.chart.values import OLDEST_KUBERNETES, minimal

PIPELINES = 32
PROCESSES = (1, 2, 4)
BACKLOG = 160_000
SLOW_BACKLOG = 3_200
SLOW_MS = 50
TAKEOVERS = 20
SCHEDULER, FORWARD = "-scheduler", "-workers-forward"


Config = Callable[[str], dict[str, object]]
"""The configuration of a pipeline, by its name."""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    folder = Path(tempfile.mkdtemp(dir=stack.folder))
    stack.redis.flush()
    with ExitStack() as things:
        api = things.enter_context(api_server(f"{OLDEST_KUBERNETES}.0"))
        helm = Helm(things.enter_context(engine(folder)), api, folder / "kubeconfig")
        url = things.enter_context(webhook.receiver(SLOW_MS))
        database = things.enter_context(stack.database("scaling"))
        pods = things.enter_context(pods_in(folder, database.url, stack.redis.url))
        charts = {n: helm.rendered(minimal(workers__groups__forward={"processes": n})) for n in PROCESSES}
        schedulers = [pods.start(charts[1], SCHEDULER).wait_ready() for _ in range(2)]
        scaling = Scaling(pods, charts, Backlog(database))

        def to_file(name: str) -> dict[str, object]:
            return {"sink_type": "file", "path": str(folder / name), "wire_format": "cloudevents_structured"}

        def to_webhook(name: str) -> dict[str, object]:
            return {"sink_type": "webhook", "url": f"{url}/{name}", "max_in_flight": 1, "batch_size": 10,
                    "allow_http": True, "allow_private_network": True}  # fmt: skip

        yield from scaling.figures("CloudEvents in files", to_file, BACKLOG, effort)
        yield from scaling.figures(f"webhooks that answer after {SLOW_MS} ms", to_webhook, SLOW_BACKLOG, effort)
        yield takeover(pods, charts[1], schedulers, database, effort.count(TAKEOVERS))


class Backlog:
    """As many outboxes as pipelines, and as many messages in each as the measurement at hand needs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names = [f"p{number}" for number in range(PIPELINES)]
        self._start = dict.fromkeys(self._names, 0)
        self.messages = 0
        for name in self._names:
            database.run("select tide.outbox_create(%s)", name)

    def fill(self, messages: int, config: Config) -> None:
        """A new backlog, and disabled pipelines that deliver it."""
        each = max(1, messages // PIPELINES)
        self.messages = each * PIPELINES
        for name in self._names:
            self._database.stop_pipeline(name)
            self._database.set_pipeline(name, name, **config(name))
            self._database.run("select tide.relay_disable(%s)", name)
            last = "select coalesce(tide.outbox_last_id(outbox_id), 0) from tide.outbox where name = %s"
            self._start[name] = int(self._database.run(last, name) or 0)
            publish = "select cardinality(tide.outbox_publish_many(%s, array_fill(%s::jsonb, array[%s])))"
            self._database.run(publish, name, PAYLOAD, each)
        self._database.run("vacuum (analyze) tide.message")

    def deliver(self) -> float:
        """Messages per second, from enabling all pipelines until all is settled."""
        for name in self._names:
            self._database.stop_pipeline(name)
            offset = "update tide.consumer_group set offset_id = %s where name = %s"
            self._database.run(offset, self._start[name], name)
        began = time.monotonic()
        self._database.run("select count(tide.relay_enable(p.name)) from tide.pipeline p")
        wait_until(lambda: is_delivered(self._database), "the backlog is delivered", 600, every_seconds=0.02)
        return self.messages / (time.monotonic() - began)


def is_delivered(database: Database) -> bool:
    """Whether nothing is left to settle."""
    behind = "select coalesce(sum(tide.outbox_last_id(outbox_id) - offset_id), 0) from tide.consumer_group"
    return int(database.run(behind)) <= 0


@dataclass
class Scaling:
    """One backlog, delivered by groups of workers of different sizes, in turns."""

    pods: Pods
    charts: dict[int, list[Object]]
    backlog: Backlog

    def figures(self, what: str, config: Config, messages: int, effort: Effort) -> Iterator[Figure]:
        self.backlog.fill(effort.count(messages), config)
        results = in_turns({str(n): self._measured(n) for n in PROCESSES}, effort.rounds)
        one = results[str(PROCESSES[0])]
        for n in PROCESSES[1:]:
            note = f"{spread(results[str(n)])}, 1 process {spread(one)}; {PIPELINES} pipelines"
            yield Figure(f"{what}: {n} worker processes / 1", f"{ratio(results[str(n)], one):.2f}", note=note)

    def _measured(self, processes: int) -> Callable[[], float]:
        def measure() -> float:
            workers = self.pods.start(self.charts[processes], FORWARD).wait_ready()
            rate = self.backlog.deliver()
            workers.stop()
            return rate

        return measure


def takeover(pods: Pods, chart: list[Object], schedulers: list[PodProcess], database: Database, times: int) -> Figure:
    """From the kill -9 of one scheduler until what is published then is delivered, with all pipelines in use."""
    workers = pods.start(chart, FORWARD).wait_ready()
    seconds = []
    for _ in range(times):
        killed, *others = schedulers
        killed.kill()
        began = time.monotonic()
        for name in (f"p{number}" for number in range(PIPELINES)):
            database.run("select tide.outbox_publish(%s, %s::jsonb)", name, PAYLOAD)
        wait_until(lambda: is_delivered(database), "the other scheduler has taken over")
        seconds.append(time.monotonic() - began)
        schedulers = [*others, pods.start(chart, SCHEDULER).wait_ready()]
    workers.stop()
    note = f"{min(seconds):.2f} to {max(seconds):.2f} s over {times} kills; {PIPELINES} pipelines, two schedulers"
    return Figure("scheduler killed, until the other's first messages of all its pipelines are delivered",
                  f"{statistics.median(seconds):.2f} s", note=note)  # fmt: skip
