"""What each way to publish costs, against a plain INSERT of the same messages into a plain table.

By the CPU of the server for each message, which other programs on the machine change little; the rates are beside it.
"""

from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio
from benchmarks.pgbench import transactions_per_second
from benchmarks.session_cpu import SessionCpu
from benchmarks.stack import Database, Stack

CLIENTS = 32
OUTBOX = "ways"
# A table as an application would make it: a key, a unique index, no partitions.
PLAIN = """
create table public.plain (
    id bigint generated always as identity primary key, created_at timestamptz default clock_timestamp(), key text,
    headers jsonb default '{}', payload jsonb)
"""
# Messages of a transaction, clients, and the ratio that each way has to reach.
SIZES: dict[int, tuple[int, dict[str, float]]] = {
    1: (CLIENTS, {"view": 0.8, "call": 0.6}),
    10: (CLIENTS, {"view": 0.0, "call": 0.6}),
    1000: (4, {"view": 0.0, "call": 0.9}),
}
SCRIPTS = {
    1: {"plain": "insert_plain.sql", "view": "insert_view.sql", "call": "publish.sql"},
    10: {"plain": "insert_plain_many.sql", "view": "insert_view_many.sql", "call": "publish_many.sql"},
}


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("publish_ways") as database:
        database.run("select tide.outbox_create(%s, partition_size => 1000000000)", OUTBOX)
        database.run(PLAIN)
        for messages, (clients, targets) in SIZES.items():
            yield from _size(stack, database, effort, messages, clients, targets)


def _size(
    stack: Stack, database: Database, effort: Effort, messages: int, clients: int, targets: dict[str, float]
) -> Iterator[Figure]:
    cpu = SessionCpu(stack, database, "tide.message_1_ids")

    def way(name: str) -> Callable[[], float]:
        script = SCRIPTS[min(messages, 10)][name]

        def measure() -> float:
            return transactions_per_second(
                database.url, script, clients=clients, seconds=effort.seconds, outbox=OUTBOX, messages=messages
            )

        return cpu.of(name, measure, "public.plain_id_seq" if name == "plain" else None)

    rates = in_turns({name: way(name) for name in ("plain", *targets)}, effort.rounds)
    plain = cpu.microseconds("plain")
    for name, target in targets.items():
        ours = cpu.microseconds(name)
        each = "one message" if messages == 1 else f"{messages:,} messages"
        called = "INSERT into the view" if name == "view" else "outbox_publish" + ("_many" if messages > 1 else "")
        what = f"{clients} clients, {each} in a transaction: {called} / plain INSERT, CPU of the server"
        note = (
            f"plain INSERT {plain:.1f} µs of CPU for each message, ours {ours:.1f} µs; "
            f"transactions {ratio(rates[name], rates['plain']):.2f}"
        )
        yield at_least(what, plain / ours, target, note) if target else Figure(what, f"{plain / ours:.2f}", note=note)
