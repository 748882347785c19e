"""`relay up`: the whole system in a folder, used by the other verbs from there."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.local.own_folder import MARKER
from relay.local.servers import EmbeddedRedis
from tests.cli.command import environment, invoke, run, start
from tests.paths import DATA, REACH
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)
AWKWARD_LINES = 14


class Up:
    """One `relay up` in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            self.process = start("up", *options, cwd=folder, stdout=log, env=self.environment())

    def environment(self) -> dict[str, str]:
        ours = environment(
            RELAY_METRICS_ADDR="127.0.0.1:0",
            RELAY_WORKER_METRICS_ADDR="127.0.0.1:0",
            RELAY_API_ADDR="127.0.0.1:0",
            RELAY_API_METRICS_ADDR="127.0.0.1:0",
        )
        return {name: value for name, value in ours.items() if name not in REACH}  # as on the first day

    def wait_until_ready(self) -> "Up":
        # The scheduler was told to take any free port, so it is asked through the database.
        wait_until(lambda: "scheduler started" in self.text and self.status is not None, 90)
        return self

    @property
    def text(self) -> str:
        assert self.process.poll() is None, self.log.read_text()
        return self.log.read_text()

    @property
    def status(self) -> Any:
        """Asked in this process, because it is asked again and again, and each start of a command takes a second."""
        done = invoke("status", "--json", url=self.url)
        return {pipeline["name"]: pipeline for pipeline in json.loads(done.stdout)} if done.exit_code == 0 else None

    @property
    def url(self) -> str:
        return str(json.loads(f'"{(self.folder / "tide-data/env").read_text().split("POSTGRES_URL=")[1].split()[0]}"'))

    def verb(self, *arguments: "str | Path") -> Any:
        return run(*arguments, cwd=self.folder)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def up(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def make(*options: str) -> Up:
        started.append(Up(own_dirs(), *options))
        return started[-1]

    yield make
    for one in started:
        if one.process.poll() is None:
            one.stop(signal.SIGTERM)


def children(pid: int) -> list[int]:
    """Every process below this one."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()[1:]]
    parent_of = {int(child): int(parent) for child, parent in pairs}
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parent_of.items() if parent in new]
        found += new
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_events_of_a_file_reach_a_file_and_nats_equal_and_in_order(
    up: Callable[..., Up], nats_server: NatsServer
) -> None:
    running = up().wait_until_ready()
    out = running.folder / "tide-data" / "files" / "github.jsonl"
    with psycopg.connect(running.url, autocommit=True) as connection:
        connection.execute("select tide.outbox_create('github')")
        to_file = {"sink_type": "file", "path": str(out), "wire_format": "raw"}
        to_nats = {"sink_type": "nats", "url": nats_server.url, "stream": "up-github", "create_stream": True,
                   "subject": "up-github.{type}"}  # fmt: skip
        for name, config in (("to-file", to_file), ("to-nats", to_nats)):
            connection.execute("select tide.relay_set_outbox(%s, 'github', %s)", [name, json.dumps(config)])
    published = running.verb("publish", "github", "--file", DATA / "github-events.jsonl", "--create")
    assert (published.returncode, published.stdout) == (0, "published 170 messages to github, ids 1 to 170\n")
    wait_until(lambda: all(p["delivered"] == 170 for p in running.status.values()), 60)
    events = [json.loads(line) for line in (DATA / "github-events.jsonl").read_text("utf-8").splitlines()]
    payloads = [event["payload"] for event in events]
    assert [json.loads(line) for line in out.read_text("utf-8").splitlines()] == payloads
    received = received_from(nats_server, "up-github")
    assert [json.loads(body) for _, body in received] == payloads
    assert [subject for subject, _ in received] == [f"up-github.{event['type']}" for event in events]
    doctor = running.verb("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert readable_by_others(running.folder / "tide-data") == []


def readable_by_others(folder: Path) -> list[str]:
    """What a user who is neither we nor PostgreSQL may read or write, and folders that they may list or enter."""
    found = [folder, *folder.rglob("*")]
    return [str(path) for path in found if not path.is_symlink() and path.stat().st_mode & 0o007]


def received_from(server: NatsServer, stream: str) -> list[tuple[str, bytes]]:
    """Everything in a stream, in its order."""
    import asyncio

    import nats

    async def read() -> list[tuple[str, bytes]]:
        client = await nats.connect(server.url)
        try:
            jetstream = client.jetstream()
            last = (await jetstream.stream_info(stream)).state.last_seq
            found = [await jetstream.get_msg(stream, seq) for seq in range(1, last + 1)]
            return [(message.subject or "", message.data or b"") for message in found]
        finally:
            await client.close()

    return asyncio.run(read())


def test_one_runs_in_a_folder_until_ctrl_c_and_the_next_goes_on_with_the_data(up: Callable[..., Up]) -> None:
    running = up().wait_until_ready()
    second = running.verb("up")
    assert (second.returncode, "another relay up runs in tide-data" in second.stderr) == (1, True)
    assert running.verb("publish", "o", "--create", "--file", DATA / "awkward.jsonl").returncode == 0
    processes = children(running.process.pid)
    assert len(processes) > 10
    assert running.stop() == 0
    assert not [pid for pid in processes if is_running(pid)]
    assert not (running.folder / "tide-data/env").exists()
    assert running.verb("status").returncode == 1
    again = Up(running.folder)
    try:
        again.wait_until_ready()
        with psycopg.connect(again.url) as connection:
            row = connection.execute("select count(*) from tide.message").fetchone()
        assert row == (AWKWARD_LINES,)
    finally:
        again.stop(signal.SIGTERM)


def test_a_part_that_dies_is_started_again_and_all_end_when_it_is_killed_itself(up: Callable[..., Up]) -> None:
    running = up().wait_until_ready()
    running.verb("publish", "o", "--create", "--file", DATA / "awkward.jsonl")
    running.verb("pipeline", "set", "p", "o", "--config", '{"sink_type": "stdout"}')
    wait_until(lambda: running.status["p"]["delivered"] == AWKWARD_LINES, 60)
    for part, word in (("scheduler", "scheduler.cli"), ("workers", "dramatiq"), ("Redis", "redis-server")):
        os.kill(next(pid for pid in children(running.process.pid) if word in command_of(pid)), signal.SIGKILL)
        said = f"{part} has ended; restarting it in 1 s"
        wait_until(partial(lambda said: said in running.text, said), 60)

    running.verb("publish", "o", "--file", DATA / "awkward.jsonl")
    wait_until(lambda: running.status["p"]["delivered"] >= AWKWARD_LINES * 2, 90)
    assert 'workers   | {"version":1,"id":"o:' in running.text
    processes = children(running.process.pid)
    running.process.kill()
    running.process.wait(10)
    wait_until(lambda: not [pid for pid in processes if is_running(pid)], 60)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except FileNotFoundError:
        return ""


def test_given_urls_are_used_instead(
    up: Callable[..., Up], empty_database: Database, redis_server: EmbeddedRedis
) -> None:
    running = up("--postgres-url", empty_database.url, "--broker-url", redis_server.url, "--data", "elsewhere")
    env = running.folder / "elsewhere" / "env"
    wait_until(env.exists, 60)
    wait_until(lambda: "scheduler started" in running.text, 60)
    assert env.stat().st_mode & 0o777 == 0o600
    assert "PostgreSQL in" not in running.text
    assert sorted(path.name for path in env.parent.iterdir()) == [".gitignore", MARKER, "env", "files", "lock"]
    with empty_database.connect() as connection:
        assert connection.execute("select count(*) from tide.scheduler").fetchone() == (1,)
    assert running.stop(signal.SIGTERM) == 0
