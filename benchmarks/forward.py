"""Outbox to a sink, one pipeline, one worker: from enabling the pipeline until its offset is at the end.

Against the bare loops of `backends/`, which deliver the same messages from the same table, in the same batches.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count

from benchmarks import bare, proc
from benchmarks.backends.base import Destination
from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Relay, Stack

TARGET = 0.6
FILE_BACKLOG = 300_000
BATCHES = (1000, 100)

Benchmark = Callable[[Stack, Effort], Iterator[Figure]]
Made = Callable[[Stack, Database], AbstractContextManager[Destination]]

_places = count(1)


def to_sink(name: str, backlog: int, batches: tuple[int, ...], made: Made, *, plain: bool = False) -> Benchmark:
    """A benchmark of one sink; the first batch has a target. `plain`: the note tells of a floor without headers too."""

    def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
        with (
            stack.database("forward") as database,
            stack.relay(database) as relay,
            made(stack, database) as destination,
        ):
            messages = fill(database, effort.count(backlog))
            database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "unused.jsonl"))
            for batch in batches:
                measured = Measured(database, destination, batch, messages, relay)
                variants = {"bare": measured.floor, "ours": measured.ours}
                if plain:
                    variants["plain"] = measured.floor_of_bodies
                if batch == batches[0]:
                    in_turns(variants, 1)  # not counted: in it the worker imports the client, and caches fill
                results = in_turns(variants, effort.rounds)
                yield _compared(f"outbox -> {name}, batch {batch}", results, batch == batches[0], measured.cpu)

    return run


class Measured:
    """Each method is one round: it returns messages per second."""

    def __init__(self, database: Database, destination: Destination, batch: int, backlog: int, relay: Relay) -> None:
        self._database = database
        self._destination = destination
        self._batch = batch
        self._backlog = backlog
        self._relay = relay
        self._cpu: dict[str, list[float]] = {}

    @property
    def cpu(self) -> str:
        """What a message takes of the processes that deliver, with all their threads."""
        each = [f"{name} {statistics.median(values):.1f} µs" for name, values in self._cpu.items()]
        return "CPU a message: " + ", ".join(each)

    def floor(self) -> float:
        return self._round(
            lambda place: self._timed(lambda batches: self._destination.deliver(batches, place, self._backlog)),
            "bare loop",
        )

    def floor_of_bodies(self) -> float:
        return self._round(
            lambda place: self._timed(lambda batches: self._destination.deliver_bodies(batches, place)),
            "bare loop without headers",
        )

    def ours(self) -> float:
        def measure(place: str) -> float:
            config = self._destination.config(place, self._backlog)
            return drain(self._database, self._backlog, lambda: None, batch_size=self._batch, **config)

        return self._round(measure, "worker", lambda: proc.family_cpu_seconds([self._relay.workers.pid]))

    def _round(
        self, measure: Callable[[str], float], who: str, cpu_seconds: Callable[[], float] = time.process_time
    ) -> float:
        place = f"place{next(_places)}"
        self._destination.make(place)
        before = cpu_seconds()
        rate = measure(place)
        self._cpu.setdefault(who, []).append((cpu_seconds() - before) / self._backlog * 1e6)
        if (found := self._destination.count(place)) != self._backlog:
            raise RuntimeError(f"{found} messages arrived of {self._backlog}")
        self._destination.remove(place)
        return rate

    def _timed(self, deliver: Callable[[bare.Batches], None]) -> float:
        began = time.monotonic()
        deliver(bare.Batches(self._database.url, 1, self._batch))
        return self._backlog / (time.monotonic() - began)


def _compared(what: str, results: dict[str, list[float]], has_target: bool, cpu: str = "") -> Figure:
    note = f"ours {spread(results['ours'])}, bare loop {spread(results['bare'])}"
    if "plain" in results:
        of_plain = ratio(results["ours"], results["plain"])
        note += f", without headers {spread(results['plain'])}: {of_plain:.2f} of that"
    if cpu:
        note += f"; {cpu}"
    value = ratio(results["ours"], results["bare"])
    if has_target:
        return at_least(f"{what} / bare loop", value, TARGET, note)
    return Figure(f"{what} / bare loop", f"{value:.2f}", note=note)


def run_file(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("to_file") as database, stack.relay(database):
        backlog = fill(database, effort.count(FILE_BACKLOG))
        database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "ours.jsonl"))
        for batch in BATCHES:
            results = in_turns(
                {
                    "bare": _bare_file(stack, database, batch, backlog),
                    "ours": _ours_file(stack, database, batch, backlog, "raw"),
                    "envelope": _ours_file(stack, database, batch, backlog, "envelope"),
                },
                effort.rounds,
            )
            yield _compared(f"outbox -> file, batch {batch}, payloads", results, batch == BATCHES[0])
            what = f"outbox -> file, batch {batch}, envelopes / bare loop with payloads"
            yield Figure(what, f"{ratio(results['envelope'], results['bare']):.2f}", note=spread(results["envelope"]))


def fill(database: Database, messages: int) -> int:
    bare.prepare(database.session)
    database.run("select tide.outbox_create('o')")
    for begin in range(0, messages, 10_000):
        database.run(
            "select cardinality(tide.outbox_publish_many('o', array_fill(%s::jsonb, array[%s])))",
            PAYLOAD, min(10_000, messages - begin),
        )  # fmt: skip
    database.run("vacuum (analyze) tide.message")
    database.run("checkpoint")
    return messages


def _bare_file(stack: Stack, database: Database, batch: int, backlog: int) -> Callable[[], float]:
    def measure() -> float:
        path = stack.folder / "bare.jsonl"
        path.unlink(missing_ok=True)
        began = time.monotonic()
        done = bare.to_file(bare.Batches(database.url, 1, batch), path)
        if done != backlog:
            raise RuntimeError(f"the bare loop delivered {done} of {backlog} messages")
        return backlog / (time.monotonic() - began)

    return measure


def _ours_file(stack: Stack, database: Database, batch: int, backlog: int, wire_format: str) -> Callable[[], float]:
    def measure() -> float:
        path = stack.folder / "ours.jsonl"
        rate = drain(
            database, backlog, lambda: path.unlink(missing_ok=True),
            sink_type="file", path=str(path), batch_size=batch, wire_format=wire_format,
        )  # fmt: skip
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        if lines != backlog:
            raise RuntimeError(f"{lines} lines of {backlog} messages")
        return rate

    return measure


def drain(database: Database, backlog: int, clear: Callable[[], object], **config: object) -> float:
    """Messages per second over the whole backlog, with the start of the drain in it."""
    database.stop_pipeline("p")
    database.set_pipeline("p", "o", **config)
    database.run("update tide.consumer_group set offset_id = 0")
    database.run("delete from tide.position")  # where the last object of object storage was to end
    clear()
    began = time.monotonic()
    database.run("select tide.relay_enable('p')")
    database.wait_until_drained("p")
    seconds = time.monotonic() - began
    if dead := database.run("select count(*) from tide.dead_letter"):
        raise RuntimeError(f"{dead} dead letters: {database.run('select reason from tide.dead_letter limit 1')}")
    return backlog / seconds
