"""Resident memory of a worker process that drains large backlogs."""

import time
from collections.abc import Iterator

from benchmarks import proc
from benchmarks.figures import Effort, Figure, below
from benchmarks.stack import Database, Relay, Stack

TARGET_MB = 150.0
# (what, messages, bytes of each)
BACKLOGS = (("10 KB", 20_000, 10_000), ("1 MiB", 200, 1_048_000))
SAMPLE_SECONDS = 0.02

_FILL = """
insert into tide.message (outbox_id, id, size, headers, payload)
select b.outbox_id, nextval(b.ids), %s, '{}', to_jsonb(t.text)
  from tide.outbox b, generate_series(1, %s) n,
       lateral (select string_agg(md5(n::text || i::text), '') as text from generate_series(1, %s) i) t
 where b.name = %s
"""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("memory") as database, stack.relay(database) as relay:
        for number, (what, full_count, size) in enumerate(BACKLOGS):
            messages = effort.count(full_count)
            outbox = f"o{number}"
            database.run("select tide.outbox_create(%s)", outbox)
            database.run(_FILL, size, messages, size // 32, outbox)
            before = _largest(relay)
            path = stack.folder / f"memory{number}.jsonl"
            database.set_pipeline(outbox, outbox, sink_type="file", path=str(path), batch_size=1000)
            samples = _drain(database, relay, outbox)
            path.unlink()
            third = len(samples) // 3 or 1
            flat = max(samples[2 * third :]) / max(samples[third : 2 * third])
            note = f"{messages:,} messages, {messages * size / 1e6:,.0f} MB; {before:.0f} MB before"
            yield below(
                f"worker, backlog of {what} messages, batch 1000: peak", _largest(relay, "VmHWM"), TARGET_MB, "MB", note
            )
            yield below(f"worker, backlog of {what} messages: peak of the last third / the middle third", flat, 1.2, "")


def _drain(database: Database, relay: Relay, pipeline: str) -> list[float]:
    samples: list[float] = []
    while not samples or database.behind(pipeline) > 0:
        samples.append(_largest(relay))
        time.sleep(SAMPLE_SECONDS)
    return samples


def _largest(relay: Relay, field: str = "VmRSS") -> float:
    return max((proc.memory_mb(pid, field) for pid in proc.children(relay.workers.pid)), default=0.0)
