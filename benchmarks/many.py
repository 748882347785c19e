"""Many outboxes, of which few move: latency, the first delivery after a start, and a scheduler at rest.

Each fleet has a database, a scheduler and a worker process of its own, on the same servers. The figures of the large
ones are ratios to those of the smallest, measured by turns: PostgreSQL, Redis and the machine are the same for all.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks import proc
from benchmarks.figures import Effort, Figure, in_turns, percentile, ratio
from benchmarks.stack import POSTGRES_SETTINGS, Database, Relay, Stack, wait_until
from relay.local.servers import EmbeddedPostgres

SIZES = (10, 1_000, 10_000)
QUICK_SIZES = (10, 300)
MOVING = 50
MESSAGES = 200
"""Of one round, each published alone to the next of the outboxes that move."""
REST_SECONDS = 15.0
# Not counted, until sessions that have become idle are calm.
CALM_SECONDS = 12.0
LIMIT_SECONDS = 900.0
LOOK_SECONDS = 0.0005
# Of one transaction: each outbox is a few tables, and locks on them.
AT_ONCE = 20
# Schedulers hold a lock for each pipeline: more than a server has room for by default. What a commit waits for the disk
# is the same for all fleets, and would hide what they differ in.
SETTINGS: dict[str, str | int] = {**POSTGRES_SETTINGS, "max_locks_per_transaction": 512, "fsync": "off"}
OUTBOXES = "select count(tide.outbox_create('o' || n)) from generate_series(%s::int, %s::int) n"
PIPELINES = """
select count(tide.relay_set_outbox(
           'p' || n, 'o' || n, jsonb_build_object('sink_type', 'file', 'path', %s::text || n || '.jsonl')))
  from generate_series(%s::int, %s::int) n
"""
ASLEEP = "select count(*) >= %s from tide.drain where outcome = 'idle' and lease_until is null"


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    sizes = SIZES if effort.scale >= 1 else QUICK_SIZES
    with ExitStack() as things:
        postgres = things.enter_context(EmbeddedPostgres(stack.folder / "many", 18, SETTINGS))
        stack.redis.flush()
        fleets = [Fleet(things, stack, postgres.url, size) for size in sizes]
        starts = [fleet.start(things) for fleet in fleets]
        for fleet in fleets:
            fleet.settle()
        messages = effort.count(MESSAGES)
        for fleet in fleets:
            fleet.latencies(min(MOVING, fleet.outboxes))  # not counted: each pipeline that moves is drained once
        p50: dict[str, list[float]] = {}
        p99: dict[str, list[float]] = {}

        def measured(fleet: Fleet) -> Callable[[], float]:
            def measure() -> float:
                found = fleet.latencies(messages)
                p99.setdefault(fleet.name, []).append(percentile(found, 99))
                return percentile(found, 50)

            return measure

        p50 = in_turns({fleet.name: measured(fleet) for fleet in fleets}, effort.rounds)
        rest = in_turns({fleet.name: fleet.rest for fleet in fleets}, 1)
    first = fleets[0]
    for fleet, start in zip(fleets[1:], starts[1:], strict=True):
        of = f"{fleet.name} / {first.name}"
        for name, found in (("p50", p50), ("p99", p99)):
            ours, few = statistics.median(found[fleet.name]), statistics.median(found[first.name])
            value = f"{ratio(found[fleet.name], found[first.name]):.2f}"
            yield Figure(f"{of}: commit to sink, {name}", value, note=f"{ours:.1f} ms, {few:.1f} ms")
        [busy], [calm] = rest[fleet.name], rest[first.name]
        note = f"{busy:.2f} % of a core, {calm:.2f} %"
        yield Figure(f"{of}: CPU of the scheduler at rest", f"{busy / calm:.2f}", note=note)
        note = f"{start:.1f} s, {starts[0]:.1f} s; {fleet.name} made in {fleet.made_seconds:.0f} s"
        yield Figure(f"{of}: first delivery after a start", f"{start / starts[0]:.2f}", note=note)


class Fleet:
    """A database with as many outboxes and pipelines, and the relay on it."""

    def __init__(self, things: ExitStack, stack: Stack, server_url: str, outboxes: int) -> None:
        self.outboxes = outboxes
        self.name = f"{outboxes:,} outboxes"
        self._folder = stack.folder / f"many{outboxes}"
        self._folder.mkdir()
        self._stack = stack
        self.database: Database = things.enter_context(stack.database(f"many{outboxes}", server_url))
        began = time.monotonic()
        for first in range(0, outboxes, AT_ONCE):
            last = min(first + AT_ONCE, outboxes) - 1
            self.database.run(OUTBOXES, first, last)
            self.database.run(PIPELINES, f"{self._folder}/", first, last)
        self.database.run("vacuum (analyze)")
        self.made_seconds = time.monotonic() - began
        self._relay: Relay | None = None
        self._numbers = 0

    def start(self, things: ExitStack) -> float:
        """Seconds from the start of scheduler and workers to the first delivery of a message that waits."""
        path = self._path(self._next())
        self.database.run("select tide.outbox_publish(%s, '0')", f"o{path.stem}")
        began = time.monotonic()
        self._relay = things.enter_context(self._stack.another_relay(self.database))
        wait_until(lambda: _size(path) > 0, "the first delivery", LIMIT_SECONDS)
        return time.monotonic() - began

    def settle(self) -> None:
        """Waits until each pipeline was drained once."""
        wait_until(lambda: bool(self.database.run(ASLEEP, self.outboxes)), "all drained", LIMIT_SECONDS, 0.5)

    def latencies(self, messages: int) -> list[float]:
        """Milliseconds from the commit of a message to its line in the file, of one after the other."""
        found = []
        for _ in range(messages):
            number = self._next()
            path, before = self._path(number), _size(self._path(number))
            self.database.run("select tide.outbox_publish(%s, '0')", f"o{number}")
            committed = time.perf_counter()
            while _size(path) <= before:
                if time.perf_counter() > committed + LIMIT_SECONDS:
                    raise TimeoutError(f"{self.name}: nothing is delivered")
                time.sleep(LOOK_SECONDS)
            found.append((time.perf_counter() - committed) * 1000)
        return found

    def rest(self) -> float:
        """CPU of the scheduler, in percent of a core, while nothing is published."""
        assert self._relay
        time.sleep(CALM_SECONDS)
        pid = self._relay.scheduler.pid
        before, began = proc.family_cpu_seconds([pid]), time.monotonic()
        time.sleep(REST_SECONDS)
        return (proc.family_cpu_seconds([pid]) - before) / (time.monotonic() - began) * 100

    def _next(self) -> int:
        """The next outbox of those that move, which are spread over all."""
        moving = min(MOVING, self.outboxes)
        self._numbers = (self._numbers + 1) % moving
        return self._numbers * (self.outboxes // moving)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.jsonl"


def _size(path: Path) -> int:
    """Of a file that may not be there yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
