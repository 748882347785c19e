"""Lanes: one pipeline, its backlog delivered by more and more drains at a time, against one lane of the same run.

A sink that waits shows what lanes are for: webhooks that answer after 50 ms. There one process has room for all lanes;
with one thread in each process, more processes show that lanes spread over workers. Kafka shows what they bring where
the processor is the limit.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.backends import webhook
from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack, wait_until

KEYS = 1000
LANES = (1, 2, 4, 8)
PROCESSES = (1, 2, 4)
SLOW_MS = 50
SLOW_BACKLOG = 2_000
BACKLOG = 400_000
# Lanes are owned within a second or so after the first drain began: what comes before is not measured.
SHARE_BEFORE = 0.1

Config = dict[str, object]


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with webhook.receiver(SLOW_MS) as url, stack.database("lanes") as database:
        slow: Config = {"sink_type": "webhook", "url": url, "max_in_flight": 1, "batch_size": 10,
                        "allow_http": True, "allow_private_network": True}  # fmt: skip
        kafka: Config = {"sink_type": "kafka", "brokers": stack.kafka, "topic": "lanes", "batch_size": 1000}
        lanes = Lanes(stack, database)
        webhooks, rounds = f"webhooks that answer after {SLOW_MS} ms", effort.rounds
        lanes.fill("slow", effort.count(SLOW_BACKLOG))
        one_process = {str(n): lanes.measured("slow", slow, lanes=n, threads=8) for n in LANES}
        yield from _figures(webhooks, "lanes", in_turns(one_process, rounds))
        one_thread = {str(n): lanes.measured("slow", slow, lanes=4, processes=n, threads=1) for n in PROCESSES}
        yield from _figures(f"{webhooks}, 4 lanes", "processes of one thread", in_turns(one_thread, rounds))
        lanes.fill("fast", effort.count(BACKLOG))
        each_its_own = {str(n): lanes.measured("fast", kafka, lanes=n, processes=n, threads=8) for n in PROCESSES}
        yield from _figures("Kafka", "lanes in as many processes", in_turns(each_its_own, rounds))


def _figures(what: str, of: str, results: dict[str, list[float]]) -> Iterator[Figure]:
    one = results["1"]
    for n in list(results)[1:]:
        note = f"{spread(results[n])}, with 1 {spread(one)}"
        yield Figure(f"{what}: {n} {of} / 1", f"{ratio(results[n], one):.2f}", note=note)


@dataclass
class Lanes:
    """One outbox for each backlog, delivered again and again by a new pipeline."""

    stack: Stack
    database: Database

    def fill(self, outbox: str, messages: int) -> None:
        self.database.run("select tide.outbox_create(%s)", outbox)
        publish = (
            "select cardinality(tide.outbox_publish_many(%s, array_fill(%s::jsonb, array[%s]),"
            " (select array_agg('customer ' || i %% %s) from generate_series(1, %s) i)))"
        )
        for begin in range(0, messages, 50_000):
            part = min(50_000, messages - begin)
            self.database.run(publish, outbox, PAYLOAD, part, KEYS, part)
        self.database.run("vacuum (analyze) tide.message")

    def measured(
        self, outbox: str, config: Config, *, lanes: int, threads: int, processes: int = 1
    ) -> Callable[[], float]:
        """Messages per second."""

        def measure() -> float:
            if self.database.run("select true from tide.pipeline where name = 'lanes'"):
                self.database.run("select tide.relay_delete('lanes')")
            self.database.set_pipeline("lanes", outbox, **config, lanes=lanes)
            total = int(
                self.database.run("select tide.outbox_last_id(outbox_id) from tide.outbox where name = %s", outbox)
            )
            with self.stack.relay(self.database, processes=processes, threads=threads):
                wait_until(
                    lambda: self._delivered() >= total * SHARE_BEFORE, "deliveries have begun", 120, every_seconds=0.01
                )
                before, began = self._delivered(), time.monotonic()
                wait_until(lambda: self._delivered() >= total, "the backlog is delivered", 600, every_seconds=0.01)
                return (total - before) / (time.monotonic() - began)

        return measure

    def _delivered(self) -> int:
        return int(self.database.run("select sum(delivered) from tide.drain where pipeline = 'lanes'"))
