"""From the commit of a message to its line in the file sink; against a durable INSERT with NOTIFY in the same run."""

import json
import random
import select
import time
from collections.abc import Iterator
from datetime import datetime
from io import FileIO
from pathlib import Path

from benchmarks import pgbench, proc
from benchmarks.figures import Effort, Figure, below, percentile
from benchmarks.stack import Connection, Database, Stack, wait_until

SINGLE_MESSAGES = 300
PAUSES_SECONDS = (0.02, 0.12)
RATE = 5000
WRITERS = 16
RATE_SECONDS = 12.0
# Not counted, while caches and plans warm up.
WARM_UP_SECONDS = 2.0
# How often the benchmark looks at the file: often enough not to show, seldom enough to leave the cores alone.
LOOK_SECONDS = 0.0002
LINE_LIMIT_SECONDS = 30.0


def run_idle(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("idle") as database, stack.relay(database) as relay:
        path = stack.folder / "idle.jsonl"
        _pipeline(database, path, batch_size=100)
        publisher, listener = database.connect(), database.connect()
        listener.execute("listen bench_notify")
        publisher.execute("create table bench_note (number int)")
        ours, peer = [], []
        pids = {"scheduler": relay.scheduler.pid, "worker": relay.workers.pid}
        before = {name: proc.family_cpu_seconds([pid]) for name, pid in pids.items()}
        with path.open("rb", buffering=0) as file:
            for number in range(effort.count(SINGLE_MESSAGES)):
                time.sleep(random.uniform(*PAUSES_SECONDS))
                ours.append(_to_the_sink(publisher, file, number))
                time.sleep(random.uniform(*PAUSES_SECONDS))
                peer.append(_to_the_listener(publisher, listener, number))
        spent = {name: proc.family_cpu_seconds([pid]) - before[name] for name, pid in pids.items()}
        publisher.close()
        listener.close()
    floor = f"a durable INSERT with NOTIFY: p50 {percentile(peer, 50):.1f} ms, p99 {percentile(peer, 99):.1f} ms"
    above = percentile(ours, 50) - percentile(peer, 50)
    yield below("idle fleet, commit to sink, p50", percentile(ours, 50), 10, "ms", floor)
    cpu = ", ".join(f"{name} {seconds / len(ours) * 1000:.1f} ms" for name, seconds in spent.items())
    what = "idle fleet, commit to sink, p50, above a durable INSERT with NOTIFY"
    yield below(what, above, 2.5, "ms", f"CPU a message: {cpu}")
    yield below("idle fleet, commit to sink, p99", percentile(ours, 99), 50, "ms", f"largest {max(ours):.1f} ms")


def run_rate(stack: Stack, effort: Effort) -> Iterator[Figure]:
    seconds = max(5.0, effort.scale * RATE_SECONDS)
    with stack.database("rate") as database, stack.relay(database):
        path = stack.folder / "rate.jsonl"
        _pipeline(database, path, batch_size=1000)
        with (
            path.open("rb", buffering=0) as file,
            pgbench.running(
                database.url, "publish.sql", clients=WRITERS, seconds=seconds, rate=RATE, outbox="o"
            ) as process,
        ):
            chunks = []
            while process.poll() is None or database.behind("p") > 0:
                if chunk := file.read(16 * 1024 * 1024):
                    chunks.append((time.time(), chunk))
                else:
                    time.sleep(LOOK_SECONDS * 5)
            rate = pgbench.finish(process, pgbench.LIMIT_SECONDS)
    latencies = _latencies(chunks)
    short = "" if rate > RATE * 0.95 else "the machine was too busy for the full rate: "
    note = f"{short}{rate:,.0f} transactions/s of one message from {WRITERS} writers, {len(latencies):,} counted"
    yield below(f"{RATE:,} messages/s, p50", percentile(latencies, 50), 60, "ms", note)
    yield below(f"{RATE:,} messages/s, p99", percentile(latencies, 99), 60, "ms", f"largest {max(latencies):.1f} ms")


def _pipeline(database: Database, path: Path, batch_size: int) -> None:
    """A file pipeline that has delivered its first message."""
    path.touch()
    database.run("select tide.outbox_create('o')")
    database.set_pipeline("p", "o", sink_type="file", path=str(path), batch_size=batch_size)
    database.run("select tide.outbox_publish('o', '0')")
    database.wait_until_drained("p")
    wait_until(
        lambda: database.run("select lease_until is null from tide.drain where pipeline = 'p'"), "the drain ended"
    )


def _to_the_sink(publisher: Connection, file: FileIO, number: int) -> float:
    """Milliseconds from sending COMMIT until the line is there."""
    file.seek(0, 2)
    publisher.execute("begin")
    publisher.execute("select tide.outbox_publish('o', %s::text::jsonb)", (json.dumps({"number": number}),))
    began = time.perf_counter()
    publisher.execute("commit")
    wait_until(lambda: file.read(65536).endswith(b"\n"), "the message in the file", LINE_LIMIT_SECONDS, LOOK_SECONDS)
    return (time.perf_counter() - began) * 1000


def _to_the_listener(publisher: Connection, listener: Connection, number: int) -> float:
    """Milliseconds from sending COMMIT until the notification is there."""
    publisher.execute("begin")
    publisher.execute("insert into bench_note values (%s)", [number])
    publisher.execute("notify bench_notify")
    began = time.perf_counter()
    publisher.execute("commit")
    while not list(listener.notifies(timeout=0)):
        select.select([listener.fileno()], [], [], 1.0)
    return (time.perf_counter() - began) * 1000


def _latencies(chunks: list[tuple[float, bytes]]) -> list[float]:
    """Milliseconds from the insert of each message, a little before its commit, until its line was read."""
    seen = [
        (read_at, datetime.fromisoformat(json.loads(line)["created_at"]).timestamp())
        for read_at, line in _lines(chunks)
    ]
    began = seen[0][1] + WARM_UP_SECONDS
    return [(read_at - created_at) * 1000 for read_at, created_at in seen if created_at >= began]


def _lines(chunks: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """Each line with the time at which its end was read."""
    rest = b""
    for read_at, chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield read_at, line
