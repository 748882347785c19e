"""The kill loop: schedulers and workers are killed at random under load, and nothing may be missing.

    python -m tests.faults.kill_loop --seconds 180 --pipelines 20 --rate 2000 --postgres 18

Two schedulers and two groups of workers, PostgreSQL and Redis of their own, writers that roll back, pause and
publish in bulk. Every 2 to 6 seconds one process, or one whole group, is killed with SIGKILL and started again a moment
later; one fault in seven freezes it with SIGSTOP instead, for longer than its leases. In the end everything is
drained, and what the recording sinks wrote down is judged by `tests.faults.audit`. Every other pipeline has lanes, and
their number changes all the time; there the order is that of each key.

A publish in the middle of which its process was frozen is left out of the overlaps, and of nothing else: no fence in
PostgreSQL can call back what is on its way to a sink already. Exit 0 only if nothing is missing, reordered, delivered
by two at once, or delivered without having been committed.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.faults.audit import Verdict
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import Fleet, RelayProcess, WorkersProcess, running_fleet
from tests.services.postgres import PostgresServer

LEAST_FAULTS = 3
LEASE_MS = 2_500
FREEZE_SECONDS = 4.0
PAUSE_SECONDS = (2.0, 6.0)
"""Between two faults."""
DRAIN_SECONDS = 90
LANES = (1, 2, 3, 4, 8)


@dataclass
class Outcome:
    verdict: Verdict
    faults: Counter[str]
    unconfirmed: int = 0
    """Commits that a writer saw confirmed and that are not in the table: PostgreSQL itself would have lost them."""
    rolled_back: int = 0
    settled: bool = True

    @property
    def is_right(self) -> bool:
        return self.verdict.is_right and self.settled and not self.unconfirmed


def run(
    fleet: Fleet, pipelines: Pipelines, *, seconds: float, count: int, rate: float, seed: int,
    pauses: tuple[float, float] = PAUSE_SECONDS,
) -> Outcome:  # fmt: skip
    """The loop itself, on servers that run already."""
    chance = random.Random(seed)
    names = [f"pipeline{number:02}" for number in range(count)]
    for name in names:
        lanes = {"lanes": chance.choice(LANES)} if names.index(name) % 2 else {}
        # The last one shares the outbox of the first.
        outbox = names[0] if name == names[-1] else name
        pipelines.make(name, outbox, visibility_timeout_ms=LEASE_MS, slice_ms=1000, **lanes)
        pipelines.control(name, delay_ms=chance.choice((2, 20, 100)))
    processes = [fleet.scheduler(), fleet.scheduler(), *(fleet.workers(threads=8, processes=2) for _ in range(2))]
    fleet.wait_ready()
    faults: Counter[str] = Counter()
    with Writers(pipelines, sorted(set(pipelines.outbox_of.values())), rate) as writers:
        deadline = time.monotonic() + seconds
        # At least so many, however slow the machine is.
        while time.monotonic() < deadline or faults.total() < LEAST_FAULTS:
            _pass_time(chance.uniform(*pauses) / 2)
            _change_lanes(chance, pipelines)
            _pass_time(chance.uniform(*pauses) / 2)
            faults[_harm(chance, chance.choice(fleet.wait_for_one()))] += 1
    for process in processes:
        process.wait_ready()
    settled = _drain(pipelines)
    verdict = pipelines.judge_all(kills=fleet.kills, frozen=fleet.frozen)
    lost = sum(len(set(ids) - set(pipelines.committed(outbox))) for outbox, ids in writers.confirmed.items())
    return Outcome(verdict, faults, lost, writers.rolled_back, settled)


def _change_lanes(chance: random.Random, pipelines: Pipelines) -> None:
    """Of some of those that have them."""
    for name in sorted(pipelines.with_lanes):
        if chance.random() < 0.3:
            pipelines.set(name, visibility_timeout_ms=LEASE_MS, slice_ms=1000, lanes=chance.choice(LANES))


def _harm(chance: random.Random, victim: RelayProcess) -> str:
    kind = type(victim).__name__.removesuffix("Process").lower()
    if chance.random() < 0.15:
        victim.freeze()
        _pass_time(FREEZE_SECONDS)
        victim.thaw()
        return f"{kind}: frozen"
    if isinstance(victim, WorkersProcess) and chance.random() < 0.5:
        victim.kill_child()
        what = "one killed"
    else:
        victim.kill()
        what = "killed"
    _pass_time(chance.uniform(0, 1))
    victim.start()
    return f"{kind}: {what}"


def _drain(pipelines: Pipelines) -> bool:
    deadline = time.monotonic() + DRAIN_SECONDS
    waiting = set(pipelines.outbox_of)
    while waiting and time.monotonic() < deadline:
        waiting = {name for name in waiting if not pipelines.settled(name)}
        _pass_time(0.2)
    for name in sorted(waiting):
        print(f"not settled after {DRAIN_SECONDS} s: {pipelines.drain(name)}")
    return not waiting


def _pass_time(seconds: float) -> None:
    """Here the load is what is waited for: time passes under it."""
    time.sleep(max(0.0, seconds))


def table(outcome: Outcome) -> str:
    verdict = outcome.verdict
    rows = {
        "published": verdict.published,
        "rolled back": outcome.rolled_back,
        "delivered": verdict.delivered,
        "missing": verdict.missing,
        "reordered": verdict.reordered,
        "overlaps": verdict.overlaps,
        "never committed": verdict.phantoms,
        "cut off in mid-publish": verdict.interrupted,
        "duplicates (allowed)": verdict.duplicates,
        "faults": outcome.faults.total(),
    }
    lines = [f"{name:<24}{value:>10,}" for name, value in rows.items()]
    lines += [f"  {name:<22}{number:>10,}" for name, number in sorted(outcome.faults.items())]
    return "\n".join(lines + verdict.examples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--pipelines", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000, help="messages per second, over all pipelines")
    parser.add_argument("--postgres", type=int, default=18, help="its version, of those that are installed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs and what was delivered")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tide-kill-loop-"))
    folder.chmod(0o755)
    print(f"kill loop: {options.seconds:g} s, {options.pipelines} pipelines, {options.rate:g} messages/s, "
          f"PostgreSQL {options.postgres}, seed {options.seed}, in {folder}", flush=True)  # fmt: skip
    server = PostgresServer.start_in(folder / "postgres", options.postgres)
    with EmbeddedRedis(folder / "redis") as redis:
        try:
            database = server.create_database()
            pipelines = Pipelines(database.url, folder / "delivered")
            with running_fleet(database.fleet_url(), redis.url, folder / "fleet", quiet=True) as fleet:
                outcome = run(
                    fleet,
                    pipelines,
                    seconds=options.seconds,
                    count=options.pipelines,
                    rate=options.rate,
                    seed=options.seed,
                )
        finally:
            server.kill()
    print(table(outcome))
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
