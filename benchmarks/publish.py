"""What publishing costs an application: against a plain INSERT into the same table, and against NOTIFY in each."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.pgbench import transactions_per_second
from benchmarks.session_cpu import SessionCpu
from benchmarks.stack import Database, Stack

LISTENERS = 4
CLIENTS = 32
# `quiet`, the first, has no pipeline, `relayed` a file pipeline that drains it, `failing` one whose sink is down.
OUTBOXES = ("quiet", "relayed", "failing")


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("publish") as database, stack.relay(database):
        for outbox in OUTBOXES:
            database.run("select tide.outbox_create(%s)", outbox)
        config = {"sink_type": "file", "batch_size": 1000}
        database.set_pipeline("relayed", "relayed", path=str(stack.folder / "publish.jsonl"), **config)
        database.set_pipeline("failing", "failing", path=str(stack.folder / "no-such-folder" / "file"), **config)
        with _listeners(database):
            yield from _one_client(database, effort)
            yield from _many_clients(stack, database, effort)


def _one_client(database: Database, effort: Effort) -> Iterator[Figure]:
    results = in_turns(
        {
            "insert": _measure(database, "insert.sql", 1, effort.seconds / 2),
            "notify": _measure(database, "notify.sql", 1, effort.seconds / 2),
            "publish": _measure(database, "publish.sql", 1, effort.seconds / 2),
            "relayed": _measure(database, "publish.sql", 1, effort.seconds / 2, "relayed"),
        },
        effort.rounds,
    )
    bare = f"INSERT {spread(results['insert'])}"
    yield Figure(
        "1 client: NOTIFY in each / plain INSERT", f"{ratio(results['notify'], results['insert']):.2f}", note=bare
    )
    yield Figure("1 client: outbox_publish / plain INSERT", f"{ratio(results['publish'], results['insert']):.2f}")
    yield Figure(
        "1 client: outbox_publish, relay running / plain INSERT", f"{ratio(results['relayed'], results['insert']):.2f}",
        note=f"ours {spread(results['relayed'])}",
    )  # fmt: skip


def _many_clients(stack: Stack, database: Database, effort: Effort) -> Iterator[Figure]:
    cpu = SessionCpu(stack, database, "tide.message_1_ids")
    results = in_turns(
        {
            "insert": cpu.of("insert", _measure(database, "insert.sql", CLIENTS, effort.seconds)),
            "notify": _measure(database, "notify.sql", CLIENTS, effort.seconds),
            "publish": cpu.of("publish", _measure(database, "publish.sql", CLIENTS, effort.seconds)),
            "insert relayed": _measure(database, "insert.sql", CLIENTS, effort.seconds, "relayed"),
            "relayed": _measure(database, "publish.sql", CLIENTS, effort.seconds, "relayed"),
            "failing": _measure(database, "publish.sql", CLIENTS, effort.seconds, "failing"),
        },
        effort.rounds,
    )
    insert = results["insert"]
    yield Figure(
        f"{CLIENTS} clients: NOTIFY in each, {LISTENERS} listeners / plain INSERT",
        f"{ratio(results['notify'], insert):.2f}", note=f"INSERT {spread(insert)}, NOTIFY {spread(results['notify'])}",
    )  # fmt: skip
    yield at_least(
        f"{CLIENTS} clients: outbox_publish / plain INSERT", ratio(results["publish"], insert), 0.7,
        f"ours {spread(results['publish'])}; CPU of the server per transaction: "
        f"INSERT {cpu.microseconds('insert'):.0f} µs, ours {cpu.microseconds('publish'):.0f} µs",
    )  # fmt: skip
    yield at_least(
        f"{CLIENTS} clients: outbox_publish / plain INSERT, the relay delivering both",
        ratio(results["relayed"], results["insert relayed"]), 0.7, f"ours {spread(results['relayed'])}",
    )  # fmt: skip
    yield Figure(
        f"{CLIENTS} clients: outbox_publish, the relay delivering / plain INSERT that no one reads",
        f"{ratio(results['relayed'], insert):.2f}", note="the relay delivers meanwhile, on the same cores",
    )  # fmt: skip
    yield Figure(
        f"{CLIENTS} clients: outbox_publish, its sink down / plain INSERT",
        f"{ratio(results['failing'], insert):.2f}", note=f"ours {spread(results['failing'])}",
    )  # fmt: skip


def _measure(
    database: Database, script: str, clients: int, seconds: float, outbox: str = "quiet"
) -> Callable[[], float]:
    outbox_id = database.run("select outbox_id from tide.outbox where name = %s", outbox)

    def measure() -> float:
        rate = transactions_per_second(
            database.url, script, clients=clients, seconds=seconds, outbox=outbox, outbox_id=outbox_id
        )
        database.wait_until_drained("relayed")
        return rate

    return measure


@contextmanager
def _listeners(database: Database) -> Iterator[None]:
    """Sessions that LISTEN, and read what they hear."""
    sessions = [database.connect() for _ in range(LISTENERS)]
    over = threading.Event()

    def listen(session: "psycopg.Connection[object]") -> None:
        session.execute("listen bench_notify")
        while not over.is_set():
            for _ in session.notifies(timeout=0.5):
                pass

    threads = [threading.Thread(target=listen, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.close()
