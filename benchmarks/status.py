"""What the status of many pipelines costs: the list, which reads no message; `read_status`, with more and more outboxes
that lag; and the lag that a scheduler measures every five seconds. The floor is a SELECT of the pipelines' rows.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from psycopg.rows import dict_row

from benchmarks.figures import Effort, Figure, in_turns, ratio
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack
from relay.database.connection import Connection, connect
from relay.operations.status import read_status
from relay.settings import Settings
from relay.sql import query
from scheduler.session import Session

# Pipelines, and the outboxes that they read.
SIZES = ((1_000, 100), (5_000, 1_000))
LAGGING = 20
MESSAGES = 100
# Each is a few tables: more in one transaction would need more locks than a server has by default.
OUTBOXES_AT_ONCE = 100
FLOOR = "select p.*, d.* from tide.pipeline p join tide.drain d on d.pipeline = p.name order by p.name"
OUTBOX = "select tide.outbox_create('o' || n) from generate_series(%s::int, %s::int) n"
PIPELINE = """
select count(tide.relay_set_outbox('p' || n, 'o' || n %% %s, 'p' || n, '{"sink_type": "memory"}'))
  from generate_series(0, %s - 1) n
"""
PUBLISH = """
select sum(cardinality(tide.outbox_publish_many(o.name, array_fill(%s::jsonb, array[%s]))))
  from (select name from tide.outbox order by outbox_id limit %s) o
"""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    for pipelines, outboxes in SIZES:
        yield from _size(stack, effort, effort.count(pipelines), effort.count(outboxes))


def _size(stack: Stack, effort: Effort, pipelines: int, outboxes: int) -> Iterator[Figure]:
    what = f"{pipelines:,} pipelines of {outboxes:,} outboxes"
    with stack.database("status") as database:
        began = time.monotonic()
        _make(database, pipelines, outboxes)
        made = f"made in {time.monotonic() - began:.0f} s"
        settings = Settings(postgres_url=database.url)
        with closing(connect(settings, "benchmark")) as connection, Session(settings) as scheduler:
            names = [str(row[0]) for row in connection.execute("select name from tide.pipeline")]
            variants = {
                "floor": _timed(lambda: connection.execute(FLOOR).fetchall()),
                "list": _timed(lambda: _list(connection)),
                "status": _timed(lambda: read_status(connection)),
                "lag": _timed(lambda: scheduler.lag(names)),
            }
            in_turns(variants, 1)  # not counted: statements are planned, relations opened
            results = in_turns(variants, effort.rounds)
            yield _figure(f"{what}: the list / SELECT of the rows", results, "list", made)
            yield _figure(f"{what}, none lags: relay status / SELECT of the rows", results, "status")
            yield _figure(f"{what}, none lags: lag for metrics / SELECT of the rows", results, "lag")
            for lagging in (LAGGING, outboxes):
                database.run(PUBLISH, PAYLOAD, MESSAGES, lagging)
                database.run("vacuum (analyze) tide.message")
                results = in_turns(variants, effort.rounds)
                note = f"{MESSAGES} messages or more in each of them"
                lag = f"{what}, {lagging:,} outboxes lag"
                yield _figure(f"{lag}: relay status / SELECT of the rows", results, "status", note)
                yield _figure(f"{lag}: lag for metrics / SELECT of the rows", results, "lag")


def _make(database: Database, pipelines: int, outboxes: int) -> None:
    for first in range(0, outboxes, OUTBOXES_AT_ONCE):
        database.run(OUTBOX, first, min(first + OUTBOXES_AT_ONCE, outboxes) - 1)
    database.run(PIPELINE, outboxes, pipelines)
    database.run("vacuum (analyze) tide.pipeline, tide.drain, tide.consumer_group, tide.outbox")


def _list(connection: Connection) -> None:
    """As `read_status` reads it where nothing lags and no publisher is open."""
    with connection.cursor(row_factory=dict_row) as cursor:
        pipelines = cursor.execute(query("status_pipelines"), {"names": None}).fetchall()
        outbox_ids = list({row["outbox_id"] for row in pipelines})
        cursor.execute(query("status_last_ids"), {"outbox_ids": outbox_ids}).fetchall()


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    """Milliseconds of one call."""

    def measure() -> float:
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1000

    return measure


def _figure(what: str, results: dict[str, list[float]], variant: str, note: str = "") -> Figure:
    ours, floor = statistics.median(results[variant]), statistics.median(results["floor"])
    times = f"{ours:,.1f} ms, SELECT {floor:,.1f} ms"
    measured = f"{ratio(results[variant], results['floor']):.2f}"
    return Figure(what, measured, note=f"{times}; {note}" if note else times)
