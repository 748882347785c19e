"""The rows: each system in turns, ours to each peer."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import psycopg

from benchmarks.figures import Effort, Figure, at_least, below, in_turns, ratio, spread
from benchmarks.peers.systems import BATCH, PEERS, Ours, Peer, System
from benchmarks.proc import children, family_cpu_seconds, memory_mb, reaped_seconds
from benchmarks.stack import Stack

OURS, AGAIN = "ours", "ours again"
WHAT = f"outbox -> Kafka, batch {BATCH}"


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with ExitStack() as opened:
        found = {OURS: Measured(opened.enter_context(Ours.running(stack)), effort)}
        found[AGAIN] = Measured(found[OURS].system, effort)
        peers: list[type[Peer]] = []
        for peer in PEERS:
            if reason := peer.environment.missing():
                yield Figure(peer.name, "missing", note=reason)
            else:
                found[peer.name] = Measured(opened.enter_context(peer.running(stack)), effort)
                peers.append(peer)
        for name in found.keys() - {AGAIN}:
            found[name].warm_up()
        rates = in_turns({name: each.round for name, each in found.items()}, effort.rounds)
        for each in found.values():
            each.look_at_memory()
    ours = found[OURS]
    again = f"{ours.cpu()}; again {found[AGAIN].cpu()}"
    yield Figure(
        f"{WHAT}: ours / ours again", f"{ratio(rates[OURS], rates[AGAIN]):.2f}",
        note=f"{spread(rates[OURS])}, again {spread(rates[AGAIN])}; CPU: {again}",
    )  # fmt: skip
    for peer in peers:
        yield from _compared(peer, ours, found[peer.name], rates[OURS], rates[peer.name])


def _compared(
    peer: type[Peer], ours: "Measured", theirs: "Measured", our_rates: list[float], rates: list[float]
) -> Iterator[Figure]:
    what = f"{WHAT}: ours / {peer.name}"
    note = f"ours {spread(our_rates)}, {peer.name} {spread(rates)}; {peer.said}"
    yield at_least(what, ratio(our_rates, rates), 1.0, note)
    yield below(f"{what}, CPU a message", ratio(ours.both, theirs.both), 1.0, "",
                f"a million messages: ours {ours.cpu()}; {peer.name} {theirs.cpu()}")  # fmt: skip
    yield Figure(
        f"{what}, memory", f"{ours.memory / theirs.memory:.2f}",
        note=f"the highest of each process, without PostgreSQL: ours {ours.memory:.0f} MB in "
        f"{ours.processes} processes, Redis among them; {peer.name} {theirs.memory:.0f} MB in {theirs.processes}",
    )  # fmt: skip


@dataclass
class Measured:
    """The rounds of one system."""

    system: System
    effort: Effort
    own: list[float] = field(default_factory=list)
    """CPU seconds a million messages, of each round: of what runs for this system alone."""
    both: list[float] = field(default_factory=list)
    """With those of PostgreSQL."""
    memory: float = 0.0
    processes: int = 0

    def cpu(self) -> str:
        both = statistics.median(self.both)
        return f"{both:,.1f} s, of which PostgreSQL {both - statistics.median(self.own):,.1f} s"

    def warm_up(self) -> None:
        """A whole backlog, for Java compiles what runs often."""
        self._deliver(self.system.backlog)

    def round(self) -> float:
        """Messages per second."""
        messages = self.effort.count(self.system.backlog)
        seconds, own, server = self._deliver(messages)
        self.own.append(own / messages * 1e6)
        self.both.append((own + server) / messages * 1e6)
        return messages / seconds

    def look_at_memory(self) -> None:
        family = {member for pid in self.system.pids for member in (pid, *children(pid))}
        self.memory = sum(memory_mb(pid, "VmHWM") for pid in family)
        self.processes = len(family)

    def _deliver(self, messages: int) -> tuple[float, float, float]:
        """Seconds from the commit of so many until all are settled; CPU seconds of the system, and of PostgreSQL."""
        system = self.system
        system.prepare()
        before = system.arrived()
        with psycopg.connect(system.database.url) as session:
            system.insert(session, messages)
            own, server, began = self._own_cpu(), self._server_cpu(), time.monotonic()
            session.commit()
            system.wait(messages)
            seconds = time.monotonic() - began
            result = seconds, self._own_cpu() - own, self._server_cpu() - server
        if (arrived := system.arrived() - before) != messages:
            raise RuntimeError(f"{arrived} messages arrived of {messages}")
        return result

    def _own_cpu(self) -> float:
        return family_cpu_seconds(self.system.pids)

    def _server_cpu(self) -> float:
        """With what has ended meanwhile."""
        return family_cpu_seconds([self.system.server]) + reaped_seconds(self.system.server)
