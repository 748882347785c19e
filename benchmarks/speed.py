"""The tables of README's section on speed, made of benchmarks/results.md: `python -m benchmarks.speed` writes them.

A test compares the two, so that no figure there is one that was not measured.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "## Speed\n", "\n## "

_SINKS: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
    ("outbox to file", [("file", "outbox -> file, batch 1000, payloads / bare loop")]),
    (
        "outbox to Kafka (librdkafka's mock cluster, same headers)",
        [("kafka", "outbox -> Kafka, batch 1000 / bare loop")],
    ),
    (
        "outbox to Redis, NATS JetStream, RabbitMQ",
        [(name.lower(), f"outbox -> {name}, batch 1000 / bare loop") for name in ("Redis", "NATS", "RabbitMQ")],
    ),
    (
        "outbox to an inbox in the same database, in another",
        [
            ("inbox", "outbox -> inbox in the same database, batch 1000 / bare loop"),
            ("inbox-remote", "outbox -> inbox in another database, batch 1000 / bare loop"),
        ],
    ),
    (
        "outbox to webhooks, one request each; JSON arrays",
        [
            ("webhook", "outbox -> webhook, batch 1000 / bare loop"),
            ("webhook-arrays", "outbox -> webhook, JSON arrays, batch 1000 / bare loop"),
        ],
    ),
    (
        "outbox to S3 objects, to SQS (both moto)",
        [
            ("object-storage", "outbox -> S3 (moto), batch 1000 / bare loop"),
            ("sqs", "outbox -> SQS (moto), batch 1000 / bare loop"),
        ],
    ),
    (
        "Kafka, NATS, Redis to an inbox",
        [(f"from-{name.lower()}", f"{name} -> inbox, batch 1000 / bare loop") for name in ("Kafka", "NATS", "Redis")],
    ),
)
_PEERS = ("Debezium's embedded engine", "faststream-outbox")


class Results:
    """The figures of benchmarks/results.md."""

    def __init__(self, text: str) -> None:
        self._rows = {
            (name, cells[0]): cells
            for name, lines in report.sections(text).items()
            for cells in (line.strip("| ").split(" | ") for line in lines if line.startswith("| "))
        }

    def measured(self, section: str, what: str) -> str:
        return self._row(section, what)[1]

    def number(self, section: str, what: str) -> float:
        return float(self.measured(section, what).split()[0].replace(",", ""))

    def rate(self, section: str, what: str) -> str:
        """Ours, of the note, with as many digits as it deserves."""
        found = re.search(r"ours ([\d,]+)/s", self._row(section, what)[-1])
        if not found:
            raise ValueError(f"{section}: no rate of ours beside {what!r}")
        rate = int(found[1].replace(",", ""))
        return f"{round(rate, 2 - len(str(rate)) if rate < 100_000 else -3):,}"

    def _row(self, section: str, what: str) -> list[str]:
        try:
            return self._rows[section, what]
        except KeyError:
            raise ValueError(f"benchmarks/results.md has no {what!r} in {section!r}") from None


def tables(results: Results) -> str:
    return "\n".join([*_sinks(results), "", *_others(results), "", *_peers(results)])


def _sinks(results: Results) -> list[str]:
    lines = ["| what, batch 1000, one pipeline, one worker process | measured | of its bare loop |", "|---|---|---|"]
    for what, rows in _SINKS:
        rates = ", ".join(results.rate(*row) for row in rows)
        lines.append(f"| {what} | {rates}/s | {', '.join(results.measured(*row) for row in rows)} |")
    return lines


def _others(results: Results) -> list[str]:
    published = ("publish", "32 clients: outbox_publish / plain INSERT")
    notified = results.measured("publish", "32 clients: NOTIFY in each, 4 listeners / plain INSERT")
    cpu = results.number("rest", "1,000 idle pipelines, CPU of one core")
    transactions = results.number("rest", "1,000 idle pipelines, transactions per second and pipeline")
    backlogs = [f"worker, backlog of {what} messages, batch 1000: peak" for what in ("10 KB", "1 MiB")]
    memory = max(results.number("memory", what) for what in backlogs)
    said = {
        "`outbox_publish`, 32 clients, one message in each durable commit": (
            f"{results.rate(*published)}/s: {results.measured(*published)} of a plain INSERT"
        ),
        "the same with a NOTIFY in each": f"{notified} of a plain INSERT",
        "commit to sink, idle fleet": _percentiles(results, "latency", "idle fleet, commit to sink"),
        "commit to sink at 5,000 messages/s": _percentiles(results, "latency-5000", "5,000 messages/s"),
        "1,000 idle pipelines": f"{cpu:.2g} % of one core, {transactions:.1g} transactions a second for each",
        "a worker with any backlog": f"{memory:.0f} MB at most, flat",
    }
    return ["| what | measured |", "|---|---|", *(f"| {what} | {how} |" for what, how in said.items())]


def _percentiles(results: Results, section: str, what: str) -> str:
    return ", ".join(f"{name} {results.number(section, f'{what}, {name}'):.2g} ms" for name in ("p50", "p99"))


def _peers(results: Results) -> list[str]:
    lines = [
        "| outbox to Kafka, batch 1000, ours beside | messages/s | CPU a message, PostgreSQL's with it | memory |",
        "|---|---|---|---|",
    ]
    for peer in _PEERS:
        what = f"outbox -> Kafka, batch 1000: ours / {peer}"
        rate, cpu, memory = (results.number("peers", f"{what}{more}") for more in ("", ", CPU a message", ", memory"))
        lines.append(f"| {peer} | {rate:.2g} times | {cpu:.2g} of its | {memory:.2g} of its |")
    return lines


def main() -> int:
    """Replaces the tables; what is written around them stays."""
    text = README.read_text()
    begin = text.index(_BEGIN) + len(_BEGIN)
    end = text.index(_END, begin)
    section = text[begin:end]
    first, last = section.index("|"), section.rindex("|") + 1
    made = tables(Results(report.RESULTS.read_text()))
    README.write_text(text[:begin] + section[:first] + made + section[last:] + text[end:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
