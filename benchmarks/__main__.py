"""`python -m benchmarks`: measures, prints a table, writes benchmarks/results.md. Exit code 1: a target was missed.

A run of all writes each section as soon as it is measured; one of some, with `--write`, writes theirs and leaves the
others as they are. So the results can be gathered in pieces: each section says when it was measured, and how.
"""

import argparse
import sys
import time
from datetime import UTC, datetime

from rich.console import Console

from benchmarks import (
    consumers,
    formats,
    forward,
    http_jobs,
    inbox_writes,
    inboxes,
    jobs_engine,
    jobs_sql,
    lanes,
    latency,
    local_inbox,
    many,
    matrix,
    memory,
    publish,
    publish_ways,
    report,
    rest,
    retention,
    scaling,
    status,
    storage,
    streams,
    table_outboxes,
)
from benchmarks.figures import FULL, QUICK, Effort, Figure
from benchmarks.forward import Benchmark
from benchmarks.jobs import table as jobs
from benchmarks.peers import table as peers
from benchmarks.stack import Stack

BENCHMARKS: dict[str, Benchmark] = {
    "publish": publish.run,
    "publish-ways": publish_ways.run,
    "storage": storage.run,
    "file": forward.run_file,
    "inbox": local_inbox.run,
    **matrix.SINKS,
    **matrix.SOURCES,
    "formats": formats.run,
    "latency": latency.run_idle,
    "latency-5000": latency.run_rate,
    "rest": rest.run,
    "consumers": consumers.run,
    "inboxes": inboxes.run,
    "inbox-writes": inbox_writes.run,
    "table-outboxes": table_outboxes.run,
    "jobs-sql": jobs_sql.run,
    "jobs-engine": jobs_engine.run,
    "http-jobs": http_jobs.run,
    "jobs": jobs.run,
    "retention": retention.run,
    "memory": memory.run,
    "status": status.run,
    "many": many.run,
    "streams": streams.run,
    "scaling": scaling.run,
    "lanes": lanes.run,
    "peers": peers.run,
}


def main() -> int:
    arguments = _arguments()
    effort = QUICK if arguments.quick else FULL
    console = Console()
    results: dict[str, report.Section] = {}
    began = time.monotonic()
    with Stack() as stack:
        machine = report.machine(stack)
        for name in arguments.only or BENCHMARKS:
            console.print(f"[bold]{name}[/bold]")
            results[name] = _measured(console, stack, name, effort)
            if arguments.write or not arguments.only:
                report.write({name: results[name]}, machine, list(BENCHMARKS))
    report.show(console, results)
    console.print(f"{time.monotonic() - began:.0f} seconds")
    return int(any(figure.met is False for section in results.values() for figure in section.figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds: noisy")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=list(BENCHMARKS),
        help="one benchmark; may be repeated: " + ", ".join(BENCHMARKS),
    )
    parser.add_argument("--write", action="store_true", help="with --only: write their sections of the results, too")
    return parser.parse_args()


def _measured(console: Console, stack: Stack, name: str, effort: Effort) -> report.Section:
    began, at = time.monotonic(), datetime.now(UTC)
    figures: list[Figure] = []
    for figure in BENCHMARKS[name](stack, effort):
        figures.append(figure)
        console.print(f"  {figure.what}: {figure.measured}  {figure.note}", highlight=False)
    seconds = time.monotonic() - began
    console.print(f"  {seconds:.0f} seconds", highlight=False)
    return report.Section(figures, f"{at:%Y-%m-%d %H:%M} UTC", seconds, quick=effort is QUICK)


if __name__ == "__main__":
    sys.exit(main())
