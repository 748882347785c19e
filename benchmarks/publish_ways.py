"""What each way to publish costs, against a plain INSERT of the same messages into a plain table.

By the CPU of the server for each message, which other programs on the machine change little; the rates are beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

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
# Messages of a transaction, and clients.
SIZES = {1: CLIENTS, 10: CLIENTS, 1000: 4}


@dataclass(frozen=True)
class Way:
    called: str
    script: str
    plain: str
    """The script of the plain INSERT of the same."""
    targets: Mapping[int, float] = field(default_factory=dict)
    """The ratio that it has to reach, for so many messages in a transaction."""


# A program sends JSON as text, and PostgreSQL makes it JSON in any way: so that is a part of the plain INSERT, too.
ONE = (
    Way("INSERT into the view", "insert_view.sql", "insert_plain.sql", {1: 0.8}),
    Way("outbox_publish", "publish.sql", "insert_plain.sql", {1: 0.6}),
)
MANY = (
    Way("INSERT of texts into the view", "insert_view_texts.sql", "insert_plain_texts.sql"),
    Way("outbox_publish_many of texts", "publish_many_texts.sql", "insert_plain_texts.sql", {10: 0.6, 1000: 0.9}),
    Way("outbox_publish_many of JSON of the database", "publish_many.sql", "insert_plain_many.sql"),
)


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("publish_ways") as database:
        database.run("select tide.outbox_create(%s, partition_size => 1000000000)", OUTBOX)
        database.run(PLAIN)
        for messages, clients in SIZES.items():
            yield from _size(stack, database, effort, messages, clients)


def _size(stack: Stack, database: Database, effort: Effort, messages: int, clients: int) -> Iterator[Figure]:
    cpu = SessionCpu(stack, database, "tide.message_1_ids")
    ways = ONE if messages == 1 else MANY

    def measured(script: str, ids: str | None = None) -> Callable[[], float]:
        def measure() -> float:
            return transactions_per_second(
                database.url, script, clients=clients, seconds=effort.seconds, outbox=OUTBOX, messages=messages
            )

        return cpu.of(script, measure, ids)

    plains = {way.plain: measured(way.plain, "public.plain_id_seq") for way in ways}
    rates = in_turns(plains | {way.script: measured(way.script) for way in ways}, effort.rounds)
    each = "one message" if messages == 1 else f"{messages:,} messages"
    for way in ways:
        plain, ours = cpu.microseconds(way.plain), cpu.microseconds(way.script)
        what = f"{clients} clients, {each} in a transaction: {way.called} / plain INSERT, CPU of the server"
        note = (
            f"plain INSERT {plain:.1f} µs of CPU for each message, ours {ours:.1f} µs; "
            f"transactions {ratio(rates[way.script], rates[way.plain]):.2f}"
        )
        if target := way.targets.get(messages):
            yield at_least(what, plain / ours, target, note)
        else:
            yield Figure(what, f"{plain / ours:.2f}", note=note)
