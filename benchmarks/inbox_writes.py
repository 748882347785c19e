"""One message in a call of tide.inbox_write, against a plain INSERT into a table like that of the inbox."""

from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, below, in_turns, ratio
from benchmarks.pgbench import transactions_per_second
from benchmarks.session_cpu import SessionCpu
from benchmarks.stack import Stack

CLIENTS = 32
TARGET_MS = 0.15
TABLES = """
select tide.inbox_create('letters');
create table public.letters (like tide.letters including all);
"""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("inbox_writes") as database:
        database.session.execute(TABLES)
        cpu = SessionCpu(stack, database, "tide.letters_inbox_seq_seq")

        def measured(script: str, ids: str | None = None) -> Callable[[], float]:
            def measure() -> float:
                return transactions_per_second(database.url, script, clients=CLIENTS, seconds=effort.seconds)

            return cpu.of(script, measure, ids)

        ways = {
            "plain": measured("inbox_insert.sql", "public.letters_inbox_seq_seq"),
            "ours": measured("inbox_write.sql"),
        }
        rates = in_turns(ways, effort.rounds)
        plain, ours = cpu.microseconds("inbox_insert.sql"), cpu.microseconds("inbox_write.sql")
        yield below(
            f"{CLIENTS} clients, one message in a call: inbox_write, CPU of the server", ours / 1000, TARGET_MS, "ms",
            note=f"plain INSERT {plain / 1000:.3f} ms, ratio {plain / ours:.2f}; "
            f"transactions {ratio(rates['ours'], rates['plain']):.2f}; a NOTIFY each",
        )  # fmt: skip
