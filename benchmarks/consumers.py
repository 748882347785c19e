"""Consumers of a group that poll and commit, against a loop that reads from an offset and moves it.

The loop takes its offset with a lock until it commits, so that several can share the work: but only one of them at a
time, where consumers of a group work at the same time, each on what it has leased.
"""

from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.forward import fill
from benchmarks.pgbench import seconds_for
from benchmarks.stack import Database, Stack

BACKLOG = 240_000
BATCHES = (100, 1000)
CLIENTS = (1, 8)


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("consumers") as database:
        # Whole batches for every client.
        messages = fill(database, effort.count(BACKLOG) // 8000 * 8000)
        database.run("select tide.create_consumer_group('workers', 'o')")
        for clients in CLIENTS:
            for batch in BATCHES:
                yield from _compared(database, messages, clients, batch, effort)


def _compared(database: Database, messages: int, clients: int, batch: int, effort: Effort) -> Iterator[Figure]:
    def measure(script: str, offset: str) -> Callable[[], float]:
        def measured() -> float:
            database.run("update bench.progress set offset_id = 0")
            database.run("select tide.seek_offset('workers', 'bench', 0)")
            seconds = seconds_for(
                database.url, script, clients=clients, transactions=messages // batch // clients,
                batch=batch, outbox_id=1,
            )  # fmt: skip
            if (reached := database.run(offset)) != messages:
                raise RuntimeError(f"the offset is {reached} after {messages} messages")
            return messages / seconds

        return measured

    ours = "select offset_id from tide.consumer_group where polled"
    results = in_turns(
        {
            "bare": measure("poll_bare.sql", "select offset_id from bench.progress"),
            "ours": measure("poll.sql", ours),
            "at once": measure("poll_at_once.sql", ours),
        },
        effort.rounds,
    )
    who = f"{clients} consumer{'s' * (clients > 1)}, batch {batch:,}"
    yield Figure(
        f"{who}: poll_outbox, commit_offset / bare loop", f"{ratio(results['ours'], results['bare']):.2f}",
        note=f"messages: ours {spread(results['ours'])}, bare {spread(results['bare'])}",
    )  # fmt: skip
    yield Figure(
        f"{who}: the same in one transaction / bare loop", f"{ratio(results['at once'], results['bare']):.2f}",
        note=f"one commit as in the bare loop; messages: ours {spread(results['at once'])}",
    )  # fmt: skip
