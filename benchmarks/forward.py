"""Outbox to file and to NATS, one pipeline, one worker: from enabling the pipeline until its offset is at the end.

Against the bare loops of `bare.py`, which deliver the same messages from the same table.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count

from benchmarks import bare
from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack, wait_until

FILE_BACKLOG = 300_000
NATS_BACKLOG = 60_000
BATCHES = (1000, 100)
TARGET = 0.6

_rounds = count(1)


def run_file(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("to_file") as database, stack.relay(database):
        backlog = _fill(database, effort.count(FILE_BACKLOG))
        database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "ours.jsonl"))
        for batch in BATCHES:
            results = in_turns(
                {
                    "bare": _bare_file(stack, database, batch, backlog),
                    "raw": _ours_file(stack, database, batch, backlog, "raw"),
                    "envelope": _ours_file(stack, database, batch, backlog, "envelope"),
                },
                effort.rounds,
            )
            yield _compared(f"outbox -> file, batch {batch}, payloads", results["raw"], results["bare"], batch)
            what = f"outbox -> file, batch {batch}, envelopes / bare loop with payloads"
            yield Figure(what, f"{ratio(results['envelope'], results['bare']):.2f}", note=spread(results["envelope"]))


def run_nats(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("to_nats") as database, stack.relay(database):
        backlog = _fill(database, effort.count(NATS_BACKLOG))
        database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "unused.jsonl"))
        for batch in BATCHES:
            results = in_turns(
                {
                    "bare": _bare_nats(stack, database, batch, backlog),
                    "raw": _ours_nats(stack, database, batch, backlog),
                },
                effort.rounds,
            )
            yield _compared(f"outbox -> NATS, batch {batch}", results["raw"], results["bare"], batch)


def _compared(what: str, ours: list[float], floor: list[float], batch: int) -> Figure:
    note = f"ours {spread(ours)}, bare loop {spread(floor)}"
    value = ratio(ours, floor)
    return at_least(f"{what} / bare loop", value, TARGET, note) if batch == BATCHES[0] else Figure(
        f"{what} / bare loop", f"{value:.2f}", note=note)  # fmt: skip


def _fill(database: Database, messages: int) -> int:
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
        return _timed(backlog, lambda: bare.to_file(database.url, 1, batch, path))

    return measure


def _bare_nats(stack: Stack, database: Database, batch: int, backlog: int) -> Callable[[], float]:
    def measure() -> float:
        stream = f"bare{next(_rounds)}"
        return _timed(backlog, lambda: bare.to_nats(database.url, 1, batch, stack.nats.url, stream, stream))

    return measure


def _timed(backlog: int, deliver: Callable[[], int]) -> float:
    began = time.monotonic()
    done = deliver()
    if done != backlog:
        raise RuntimeError(f"the bare loop delivered {done} of {backlog} messages")
    return backlog / (time.monotonic() - began)


def _ours_file(stack: Stack, database: Database, batch: int, backlog: int, wire_format: str) -> Callable[[], float]:
    def measure() -> float:
        path = stack.folder / "ours.jsonl"
        rate = _drain(
            database, backlog, lambda: path.unlink(missing_ok=True),
            sink_type="file", path=str(path), batch_size=batch, wire_format=wire_format,
        )  # fmt: skip
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        if lines != backlog:
            raise RuntimeError(f"{lines} lines of {backlog} messages")
        return rate

    return measure


def _ours_nats(stack: Stack, database: Database, batch: int, backlog: int) -> Callable[[], float]:
    def measure() -> float:
        # A stream of its own: an older one would know the messages and drop them as duplicates.
        stream = f"ours{next(_rounds)}"
        return _drain(
            database, backlog, lambda: None,
            sink_type="nats", url=stack.nats.url, stream=stream, subject_template=stream, create_stream=True,
            batch_size=batch,
        )  # fmt: skip

    return measure


def _drain(database: Database, backlog: int, clear: Callable[[], None], **config: object) -> float:
    """Messages per second over the whole backlog, with the start of the drain in it."""
    database.run("select tide.relay_disable('p')")
    wait_until(
        lambda: database.run("select lease_until is null from tide.drain where pipeline = 'p'"), "the last drain ended"
    )
    database.set_pipeline("p", "o", **config)
    database.run("update tide.consumer_group set offset_id = 0")
    clear()
    began = time.monotonic()
    database.run("select tide.relay_enable('p')")
    database.wait_until_drained("p")
    return backlog / (time.monotonic() - began)
