"""Lanes: one pipeline, its backlog delivered by more and more drains at a time, against one lane of the same run.

A sink that waits shows what lanes are for: webhooks that answer after 50 ms. There one process has room for all lanes;
with one thread in each process, more processes show that lanes spread over workers. Kafka shows what they bring where
the processor is the limit.

A round counts for as long as every round does, from when all lanes deliver: a backlog of webhooks is not delivered to
its end, for that would take one lane minutes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from benchmarks.backends import webhook
from benchmarks.backends.kafka import KafkaDestination
from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack, wait_until

KEYS = 1000
LANES = (1, 2, 4, 8)
PROCESSES = (1, 2, 4)
SLOW_MS = 50
# Eight lanes deliver 160 of them a second, in a round of five seconds or so.
SLOW_BACKLOG = 4_000
BACKLOG = 400_000
BATCH, SLOW_BATCH = 1000, 10
LIMIT_SECONDS = 120.0
LOOK_SECONDS = 0.01

Config = dict[str, object]
Rate = Callable[[], float]


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with webhook.receiver(SLOW_MS) as url, stack.database("lanes") as database:
        slow: Config = {"sink_type": "webhook", "url": f"{url}/lanes", "max_in_flight": 1, "batch_size": SLOW_BATCH,
                        "allow_http": True, "allow_private_network": True}  # fmt: skip
        kafka: Config = {"sink_type": "kafka", "brokers": stack.kafka, "topic": "lanes", "batch_size": BATCH}
        # The receiver counts each request; what is settled counts by batches, of half a second each.
        webhooks = Lanes(stack, database, "slow", slow, effort, lambda: int(httpx.get(f"{url}/lanes").text))
        webhooks.fill(SLOW_BACKLOG)
        what = f"webhooks that answer after {SLOW_MS} ms"
        with stack.relay(database):
            results = in_turns({str(n): webhooks.rate(n) for n in LANES}, effort.rounds)
        yield from _figures(what, "lanes", results)
        results = in_turns({str(n): webhooks.rate_of(n, lanes=4, threads=1) for n in PROCESSES}, effort.rounds)
        yield from _figures(f"{what}, 4 lanes", "processes of one thread", results)
        fast = Lanes(stack, database, "fast", kafka, effort, lambda: _delivered(database))
        fast.fill(BACKLOG)
        KafkaDestination(stack.kafka).make("lanes")
        results = in_turns({str(n): fast.rate_of(n, lanes=n, threads=8) for n in PROCESSES}, effort.rounds)
        yield from _figures("Kafka", "lanes in as many processes", results)


def _figures(what: str, of: str, results: dict[str, list[float]]) -> Iterator[Figure]:
    one = results["1"]
    for n in list(results)[1:]:
        note = f"{spread(results[n])}, with 1 {spread(one)}"
        yield Figure(f"{what}: {n} {of} / 1", f"{ratio(results[n], one):.2f}", note=note)


@dataclass
class Lanes:
    """An outbox whose backlog is delivered again and again by a new pipeline."""

    stack: Stack
    database: Database
    outbox: str
    config: Config
    effort: Effort
    count: Callable[[], int]
    """How many messages have been delivered, ever or by this pipeline."""

    def fill(self, messages: int) -> None:
        self.database.run("select tide.outbox_create(%s)", self.outbox)
        publish = (
            "select cardinality(tide.outbox_publish_many(%s, array_fill(%s::jsonb, array[%s]),"
            " (select array_agg('customer ' || i %% %s) from generate_series(1, %s) i)))"
        )
        for begin in range(0, messages, 50_000):
            part = min(50_000, messages - begin)
            self.database.run(publish, self.outbox, PAYLOAD, part, KEYS, part)
        self.database.run("vacuum (analyze) tide.message")

    def rate_of(self, processes: int, *, lanes: int, threads: int) -> Rate:
        """With workers of its own."""

        def measure() -> float:
            with self.stack.relay(self.database, processes=processes, threads=threads):
                return self._measured(lanes, threads * processes)

        return measure

    def rate(self, lanes: int) -> Rate:
        """Of the workers that run."""
        return lambda: self._measured(lanes, lanes)

    def _measured(self, lanes: int, threads: int) -> float:
        """Messages per second."""
        self.database.stop_pipeline("lanes")
        self.database.run("select tide.relay_delete('lanes') from tide.pipeline where name = 'lanes'")
        self.database.set_pipeline("lanes", self.outbox, **self.config, lanes=lanes)
        total = int(
            self.database.run("select tide.outbox_last_id(outbox_id) from tide.outbox where name = %s", self.outbox)
        )
        deliver = "select count(*) from tide.drain where pipeline = 'lanes' and delivered > 0"
        wait_until(lambda: self.database.run(deliver) >= min(lanes, threads), "all lanes deliver", LIMIT_SECONDS)
        before, began = self.count(), time.monotonic()
        wait_until(
            lambda: time.monotonic() - began >= self.effort.seconds or _delivered(self.database) >= total,
            "the end of a round", LIMIT_SECONDS, LOOK_SECONDS,
        )  # fmt: skip
        return (self.count() - before) / (time.monotonic() - began)


def _delivered(database: Database) -> int:
    return int(database.run("select sum(delivered) from tide.drain where pipeline = 'lanes'"))
