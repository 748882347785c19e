"""What the SQL of jobs costs: enqueuing beside a plain INSERT into the same table, one by one and in bulk; claims of a
few and of many with a large backlog, and finishes. Commits are durable."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from benchmarks.figures import Effort, Figure, at_least, below, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD, transactions_per_second
from benchmarks.session_cpu import SessionCpu
from benchmarks.stack import Database, Stack

BULK = 1000
BACKLOGS = (100_000, 1_000_000)
CLAIMS = (1, 100, 500)
# As multiples of a durable INSERT of one row: so the disk and other users of the machine cancel out. The prototype
# on a quiet machine: 0.6, 0.7 and 1.7 ms for claims, 5.5 ms for a finish, beside an INSERT of 0.4 ms.
CLAIM_TARGETS = {1: 3.0, 100: 4.0, 500: 8.0}
FINISH_TARGET = 20.0
SAMPLES = 60


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("jobs") as database:
        database.run("select tide.job_queue_create('q')")
        yield from _one_by_one(stack, database, effort)
        yield from _bulk(database, effort)
    for backlog in BACKLOGS[: 2 if effort.scale >= 1 else 1]:
        with stack.database("jobs") as database:
            database.run("select tide.job_queue_create('q')")
            with database.connect() as session:
                yield from _claims(session, backlog)


def _one_by_one(stack: Stack, database: Database, effort: Effort) -> Iterator[Figure]:
    outbox_id = _outbox_id(database)
    cpu = SessionCpu(stack, database, f"tide.job_{outbox_id}_ids")

    def measure(script: str) -> Callable[[], float]:
        return lambda: transactions_per_second(
            database.url, script, clients=1, seconds=effort.seconds, outbox_id=outbox_id
        )

    results = in_turns(
        {
            "insert": cpu.of("insert", measure("insert_job.sql")),
            "enqueue": cpu.of("enqueue", measure("enqueue.sql")),
        },
        effort.rounds,
    )
    yield at_least(
        "1 client: job_enqueue / plain INSERT", ratio(results["enqueue"], results["insert"]), 0.7,
        f"ours {spread(results['enqueue'])}, INSERT {spread(results['insert'])}; CPU of the server per transaction: "
        f"INSERT {cpu.microseconds('insert'):.0f} µs, ours {cpu.microseconds('enqueue'):.0f} µs",
    )  # fmt: skip


def _bulk(database: Database, effort: Effort) -> Iterator[Figure]:
    outbox_id = _outbox_id(database)
    insert = (
        "insert into tide.job (outbox_id, id, size, name, payload) select %s, nextval(%s::regclass), 200, 'send', p"
        " from unnest(%s::text[]::jsonb[]) p"
    )
    many = "select tide.job_enqueue_many('q', '{send}', %s::text[]::jsonb[])"
    with database.connect() as session:

        def measure(statement: str, *parameters: object) -> Callable[[], float]:
            def measured() -> float:
                payloads, jobs, began = [PAYLOAD] * BULK, 0, time.monotonic()
                while (lasted := time.monotonic() - began) < effort.seconds:
                    session.execute(statement, [*parameters, payloads])
                    jobs += BULK
                return jobs / lasted

            return measured

        results = in_turns(
            {"insert": measure(insert, outbox_id, f"tide.job_{outbox_id}_ids"), "many": measure(many)}, effort.rounds
        )
    yield at_least(
        f"batches of {BULK:,}: job_enqueue_many / plain INSERT", ratio(results["many"], results["insert"]), 0.6,
        f"jobs: ours {spread(results['many'])}, INSERT {spread(results['insert'])}",
    )  # fmt: skip


def _claims(session: "psycopg.Connection[Any]", backlog: int) -> Iterator[Figure]:
    for _ in range(backlog // 10_000):
        session.execute("select tide.job_enqueue_many('q', '{send}', array_fill(%s::jsonb, array[10000]))", [PAYLOAD])
    session.execute("vacuum analyze")
    [[outbox_id]] = session.execute("select outbox_id from tide.job_queue").fetchall()
    [[worker]] = session.execute("select tide.job_worker_start('bench', 1, '{q}', 500)").fetchall()
    session.execute("create table floor (n int)")
    finishes: list[float] = []
    floors: list[float] = []
    for want in CLAIMS:
        claims: list[float] = []
        floor: list[float] = []
        for _ in range(SAMPLES):
            took, claimed = _timed(session, "select * from tide.job_claim(%s, %s, %s)", outbox_id, worker, want)
            claims.append(took)
            if len(claimed) != want:
                raise RuntimeError(f"{len(claimed)} jobs were claimed, not {want}")
            took, _ = _timed(
                session,
                'select tide.job_finish(%s, %s::bigint[], %s::bigint[], %s::smallint[], %s::"char"[], %s::int[])',
                worker, [c[0] for c in claimed], [c[1] for c in claimed], [1] * want, ["s"] * want, [1] * want,
            )  # fmt: skip
            finishes += [took] * (want == CLAIMS[-1])
            floor.append(_timed(session, "insert into floor values (1)")[0])
        floors += floor
        row = statistics.median(floor)
        yield below(
            f"claim of {want} with a backlog of {backlog:,} / INSERT of one row",
            statistics.median(claims) / row, CLAIM_TARGETS[want], "×",
            f"{statistics.median(claims):.2f} ms (best {min(claims):.2f}), INSERT {row:.2f} ms (best {min(floor):.2f})",
        )  # fmt: skip
    row = statistics.median(floors)
    yield below(
        f"finish of {CLAIMS[-1]}, every attempt kept / INSERT of one row",
        statistics.median(finishes) / row, FINISH_TARGET, "×",
        f"{statistics.median(finishes):.2f} ms (best {min(finishes):.2f})",
    )  # fmt: skip


def _timed(session: "psycopg.Connection[Any]", statement: str, *parameters: object) -> tuple[float, list[Any]]:
    """Milliseconds, with the commit, and the rows."""
    began = time.perf_counter()
    cursor = session.execute(statement, parameters, prepare=True)
    rows = cursor.fetchall() if cursor.description else []
    return (time.perf_counter() - began) * 1000, rows


def _outbox_id(database: Database) -> int:
    return int(database.run("select outbox_id from tide.job_queue"))
