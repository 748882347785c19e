"""The kill loop of what is promised exactly once: nothing may be missing, and nothing may be there twice.

    python -m tests.faults.exactly_once --seconds 120 --only kafka-sink,redis-sink

Two schedulers and three groups of workers, for which PostgreSQL is 40 ms away: so a kill often falls between a sink and
the settle. As soon as everything flows, and sometimes sooner, one of their processes, a group, all of them or a
scheduler is killed with SIGKILL and started again, or all connections to PostgreSQL are cut. PostgreSQL and the service
behind each flow are killed and started, too, in turn (Amazon's, which here keeps everything in memory, is halted).

Kafka is Apache Kafka where tests/services/install-kafka has fetched it, and a small broker of our own otherwise.

In the end everything is drained, and the ids that arrived are counted against those that were sent. Exit 0 only if each
is there once, and in order. (A drain that outlives its lease can still receive from a source without positions, and
what it held comes late then: of such pipelines the order is not judged.)
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.backends.redis.server import DurableRedis
from tests.faults.exactly_once_flows import BATCH, OUTBOXES, Flow, Forward, Services
from tests.faults.exactly_once_sinks import FORWARD
from tests.faults.exactly_once_sources import REVERSE
from tests.faults.exactly_once_tally import Tally
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import Fleet, RelayProcess, WorkersProcess, running_fleet
from tests.services import apache_kafka
from tests.services.halt import halted
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import PostgresServer
from tests.services.proxy import Proxy

FLOWS = {kind.name: kind for kind in FORWARD + REVERSE}
POSTGRES_IS_AWAY_SECONDS = 0.02
"""In each direction."""
OUTAGE_EVERY_SECONDS = 12.0
DRAIN_SECONDS = 90
SCHEDULER_SHARE = 0.12
CUT_SHARE = 0.2
FLOW_SECONDS = 3.0
LEAST_KILLS = 8
# Lines that a worker logs when it finds that another one was killed between the sink and the settle.
TAKEN_UP = ("sink is ahead of the offset", "object is written again")


@dataclass
class Outcome:
    tallies: dict[str, Tally] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    taken_up: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    """Flows of which not everything had arrived in time."""
    drained_in_seconds: dict[str, float] = field(default_factory=dict)
    """How long each flow needed for the rest."""

    @property
    def wrong(self) -> list[str]:
        return sorted({*self.stuck, *(name for name, tally in self.tallies.items() if not tally.is_right)})

    def __str__(self) -> str:
        columns = ("sent", "arrived", "missing", "doubled", "unknown", "reordered", "dead")
        lines = [f"{'':<16}" + "".join(f"{column:>11}" for column in columns)]
        for name, tally in self.tallies.items():
            lines.append(f"{name:<16}" + "".join(f"{getattr(tally, column):>11,}" for column in columns))
        lines += [f"{name:<40}{number:>6,}" for name, number in sorted((self.faults + self.taken_up).items())]
        rest = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.drained_in_seconds.items())
        lines.append(f"drained: {rest}")
        lines += [f"not all had arrived after {DRAIN_SECONDS} s: {name}" for name in self.stuck]
        return "\n".join(lines + [line for tally in self.tallies.values() for line in tally.examples])


def run(
    kinds: Sequence[type[Flow]],
    services: Services,
    pipelines: Pipelines,
    fleet: Fleet,
    far: Proxy,
    *,
    seconds: float,
    rate: float,
    seed: int,
) -> Outcome:
    """The loop itself, on services that run already; the fleet reaches PostgreSQL through `far`.

    `rate`: messages per second, of all outboxes.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    for outbox in OUTBOXES:
        pipelines.run("select tide.outbox_create_if_not_exists(%s)", outbox)
    flows = [kind(services, pipelines) for kind in kinds]
    with ExitStack() as stack:
        for flow in flows:
            stack.callback(flow.close)
            flow.make()
        processes: list[RelayProcess] = [fleet.scheduler(), fleet.scheduler()]
        processes += [fleet.workers(threads=8, processes=count) for count in (2, 1, 1)]
        fleet.wait_ready()
        for flow in flows:
            flow.start()
        writers = Writers(pipelines, list(OUTBOXES), rate)
        with writers if any(isinstance(flow, Forward) for flow in flows) else nullcontext():
            _harm(outcome.faults, chance, pipelines, far, processes, services, flows, seconds)
        for flow in flows:
            flow.stop()
        for process in processes:
            process.wait_ready()
        far.delay(0)  # nothing is killed any more, so nothing has to be late
        outcome.drained_in_seconds = _drain(flows)
        outcome.stuck = [flow.name for flow in flows if flow.name not in outcome.drained_in_seconds]
        logs = [process.log.read_text() for process in fleet.processes]
        fenced = fleet.fenced()
        outcome.tallies = {flow.name: flow.tally(fenced) for flow in flows}
    outcome.taken_up = Counter({line: sum(log.count(line) for log in logs) for line in TAKEN_UP})
    for outbox, ids in writers.confirmed.items():
        assert set(ids) <= set(pipelines.committed(outbox)), "PostgreSQL itself has lost a commit"
    return outcome


def _harm(
    faults: Counter[str],
    chance: random.Random,
    pipelines: Pipelines,
    far: Proxy,
    processes: Sequence[RelayProcess],
    services: Services,
    flows: Sequence[Flow],
    seconds: float,
) -> None:
    outages = ["database", *sorted({flow.service for flow in flows if flow.service})]
    begin = time.monotonic()
    every_seconds = min(OUTAGE_EVERY_SECONDS, seconds / (len(outages) + 1))
    done = kills = 0
    # On a machine that is busy with other things, long enough for some kills at least.
    while (passed := time.monotonic() - begin) < seconds or (kills < LEAST_KILLS and passed < 2 * seconds):
        if passed > every_seconds * (done + 1):
            name = outages[done % len(outages)]
            _take_down(services, name, chance.uniform(0.2, 1))
            done += 1
            faults[f"outage: {name}"] += 1
        if chance.random() < 0.75:
            _wait_for_flow(pipelines)
        _pass_time(chance.uniform(0, 0.5))
        if chance.random() < CUT_SHARE:
            # What a killed worker has sent is still executed; this loses it on the way.
            far.cut()
            faults["database: cut off"] += 1
            kills += 1
            continue
        ready = [process for process in processes if process.is_running and process.is_ready()]
        scheduler = chance.random() < SCHEDULER_SHARE
        victims = [process for process in ready if isinstance(process, WorkersProcess) != scheduler]
        if victims:
            faults[_kill(chance, victims)] += 1
            kills += not scheduler


def _wait_for_flow(pipelines: Pipelines) -> None:
    """Until every pipeline settles again, so that the next kill finds each of them at work; or for a few seconds."""
    settled = "select pipeline, delivered from tide.drain"
    before = dict(pipelines.run(settled))
    deadline = time.monotonic() + FLOW_SECONDS
    while time.monotonic() < deadline:
        if all(now >= before[name] + BATCH for name, now in pipelines.run(settled)):
            return
        _pass_time(0.05)


def _kill(chance: random.Random, victims: Sequence[RelayProcess]) -> str:
    victim = chance.choice(victims)
    kind = type(victim).__name__.removesuffix("Process").lower()
    if not isinstance(victim, WorkersProcess):
        victim.kill()
        victim.start()
        return f"{kind}: killed"
    if chance.random() < 0.4:
        for each in victims:
            each.kill()
        for each in victims:
            each.start()
        return f"{kind}: all killed"
    if victim.processes > 1:
        victim.kill_child()
        what = "one process killed"
    else:
        victim.kill()
        what = "a group killed"
    victim.start()
    return f"{kind}: {what}"


def _take_down(services: Services, name: str, seconds: float) -> None:
    service = getattr(services, name)
    if isinstance(service, MotoServer):
        with halted(service.pid):
            _pass_time(seconds + 1)  # longer than the time limits, so that uploads fail that are made later
        return
    server = service if isinstance(service, KafkaServer | EmbeddedRedis | NatsServer) else service.server
    server.kill()
    _pass_time(seconds)
    server.start()


def _drain(flows: Sequence[Flow]) -> dict[str, float]:
    """After how many seconds all had arrived, of each flow of which it had."""
    begin = time.monotonic()
    took: dict[str, float] = {}
    while len(took) < len(flows) and time.monotonic() < begin + DRAIN_SECONDS:
        for flow in flows:
            if flow.name not in took and flow.is_done():
                took[flow.name] = time.monotonic() - begin
        _pass_time(0.3)
    return took


def _pass_time(seconds: float) -> None:
    """Here the load is what is waited for: time passes under it."""
    time.sleep(max(0.0, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rate", type=float, default=250, help="messages per second into the outboxes")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--only", default=",".join(FLOWS), help="names of flows, with commas between: %(default)s")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - FLOWS.keys():
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(FLOWS)}")
    kinds = [FLOWS[name] for name in names]
    folder = Path(tempfile.mkdtemp(prefix="tide-exactly-once-"))
    folder.chmod(0o755)
    print(f"exactly once: {options.seconds:g} s, seed {options.seed}, in {folder}", flush=True)
    with ExitStack() as stack:
        server = PostgresServer.start_in(folder / "postgres", 18)
        stack.callback(server.kill)
        services = Services(server.create_database())
        for kind in kinds:
            _start(stack, folder, services, kind.service)
        queue = stack.enter_context(EmbeddedRedis(folder / "queue"))
        proxy = stack.enter_context(Proxy(services.database.url))
        proxy.delay(POSTGRES_IS_AWAY_SECONDS)
        pipelines = Pipelines(services.database.url, folder / "delivered")
        url = proxy.through(services.database.fleet_url())
        fleet = stack.enter_context(running_fleet(url, queue.url, folder / "fleet", quiet=True))
        outcome = run(
            kinds, services, pipelines, fleet, proxy, seconds=options.seconds, rate=options.rate, seed=options.seed
        )
    print(outcome)
    return 1 if outcome.wrong else 0


def _start(stack: ExitStack, folder: Path, services: Services, name: str | None) -> None:
    if name is None or getattr(services, name) is not None:
        return
    if name == "remote":
        server = PostgresServer.start_in(folder / "remote", 16)
        stack.callback(server.kill)
        services.remote = server.create_database()
        return
    kafka = apache_kafka.ApacheKafka if apache_kafka.installed() else KafkaServer
    kinds = {"kafka": kafka, "redis": DurableRedis, "nats": NatsServer, "moto": MotoServer}
    setattr(services, name, stack.enter_context(kinds[name](folder / name)))


if __name__ == "__main__":
    sys.exit(main())
