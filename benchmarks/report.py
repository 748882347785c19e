"""The table for the terminal, and `benchmarks/results.md`."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
import redis
from confluent_kafka import libversion
from rich.console import Console
from rich.table import Table

import relay
from benchmarks.figures import Figure
from benchmarks.stack import Stack

RESULTS = Path(__file__).parent / "results.md"
_CLIENTS = ("psycopg", "dramatiq", "redis", "nats-py", "confluent-kafka", "amqp", "boto3", "httpx", "httpcore")
_RABBITMQ = Path("/usr/lib/rabbitmq/lib")
_VERDICTS = {True: "yes", False: "**no**", None: ""}

_HEAD = (
    "# Results",
    "",
    "Figures are ratios to a bare floor or a peer that was measured in turns with ours in the same run, medians over",
    "the rounds, unless a unit stands beside them. Each section says when it was measured: `make bench` measures all,",
    '`make bench ARGS="--only NAME --write"` one. Quick rounds are fewer and shorter; take no more than a first digit.',
    "",
)
_TABLE = ("| what | measured | target | met | note |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Section:
    """What one benchmark has measured."""

    figures: Sequence[Figure]
    at: str
    seconds: float
    quick: bool

    def lines(self) -> list[str]:
        how = "quick rounds" if self.quick else "full rounds"
        return [
            f"{self.at}, tide-relay {relay.__version__}, {how}, {self.seconds:.0f} seconds.", "", *_TABLE,
            *(f"| {f.what} | {f.measured} | {f.target} | {_VERDICTS[f.met]} | {f.note} |" for f in self.figures),
        ]  # fmt: skip


Results = Mapping[str, Section]
"""By benchmark."""


def show(console: Console, results: Results) -> None:
    table = Table(title="tide-relay against the bare floor or a peer of the same run", title_justify="left")
    for column in ("what", "measured", "target", "met", "note"):
        table.add_column(column, overflow="fold")
    for name, section in results.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/bold]")
        for figure in section.figures:
            met = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[figure.met]
            table.add_row(figure.what, figure.measured, figure.target, met, figure.note)
    console.print(table)


def write(results: Results, machine: Sequence[str], order: Sequence[str], path: Path = RESULTS) -> None:
    """Replaces the sections of these, and the lines on the machine; leaves the others. `order` names all there are."""
    found = sections(path.read_text()) if path.exists() else {}
    found |= {name: section.lines() for name, section in results.items()}
    lines = [*_HEAD, *(f"- {line}" for line in machine)]
    for name in order:
        if name in found:
            lines += ["", f"## {name}", "", *found[name]]
    path.write_text("\n".join([*lines, ""]))


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each, by name, without blank lines around them."""
    parts = (part.strip().split("\n") for part in text.split("\n## ")[1:])
    return {name: rest[1:] if rest[:1] == [""] else rest for name, *rest in parts}


def machine(stack: Stack) -> list[str]:
    """What the figures were measured on, and with."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "unknown CPU"
    )
    memory_gb = int(_lines("/proc/meminfo")[0].split()[1]) * 1024 / 1e9
    with psycopg.connect(stack.postgres.url) as session:
        postgres = session.info.parameter_status("server_version")
    with redis.Redis.from_url(stack.redis.url) as client:
        redis_server = client.info("server")["redis_version"]
    nats = subprocess.run(
        [str(Path(sys.executable).parent / "nats-server"), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    rabbitmq = ", ".join(path.name.replace("rabbitmq_server-", "RabbitMQ ") for path in _RABBITMQ.glob("*_server-*"))
    clients = ", ".join(f"{name} {version(name)}" for name in _CLIENTS)
    cores = len(os.sched_getaffinity(0))
    return [
        f"{cpu}, {cores} cores, {memory_gb:.0f} GB of memory; {platform.system()} {platform.release()}",
        f"PostgreSQL {postgres}, Redis {redis_server}, NATS {nats}, {rabbitmq or 'no RabbitMQ'}",
        f"Kafka is the mock cluster of librdkafka {libversion()[0]}; SQS and S3 are moto {version('moto')}",
        f"Python {platform.python_version()}, {clients}",
        "PostgreSQL as it is by default (every commit durable), but shared_buffers 256 MB; one scheduler, one worker",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
