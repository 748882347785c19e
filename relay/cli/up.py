"""`relay up`: the whole system on this machine, kept running for development."""

import http.client
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import click

from relay.cli.base import Verb, tell
from relay.database.migrate import migrate
from relay.errors import RelayError
from relay.local import env_file
from relay.local.file_lock import only_one
from relay.local.programs import Program, make_api, make_scheduler, make_workers
from relay.local.server_process import free_port, port_is_free
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis
from relay.process.stop import Stop
from relay.settings import Settings, option, parse_address

LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# A part that ran for so long was well: the next pause is the first again.
WELL_SECONDS = 60.0
COLOURS = {"scheduler": "cyan", "workers": "magenta", "api": "blue", "relay up": "yellow"}


class Part(Protocol):
    """A server or a program of ours."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> Any: ...

    def stop(self) -> None: ...


class Output:
    """Lines of all parts, each with the name of its part before it, whole whatever the threads do."""

    def __init__(self) -> None:
        self._lock = Lock()

    def line(self, part: str, text: str) -> None:
        with self._lock:
            click.echo(click.style(f"{part:<9} | ", fg=COLOURS.get(part)) + text)
            sys.stdout.flush()

    def of(self, part: str) -> "Any":
        """What takes the lines of one part."""
        return lambda line: self.line(part, line.decode(errors="replace").rstrip("\n"))


@dataclass(slots=True)
class Kept:
    """A part that is started again when it dies, after a pause that grows while it keeps dying."""

    name: str
    part: Part
    output: Output
    pause_seconds: float = FIRST_PAUSE_SECONDS
    started_at: float = 0.0
    start_at: float | None = None
    """When it is to be started again; None while it runs."""

    def start(self) -> None:
        self.started_at, self.start_at = time.monotonic(), None
        self.part.start()

    def look(self) -> None:
        now = time.monotonic()
        if self.start_at is not None:
            if now >= self.start_at:
                self._start_again()
        elif self.part.pid is None:
            if now - self.started_at > WELL_SECONDS:
                self.pause_seconds = FIRST_PAUSE_SECONDS
            self._later("has ended")

    def _start_again(self) -> None:
        try:
            self.start()
        except RelayError as error:
            self._later(f"cannot be started: {error}")

    def _later(self, what: str) -> None:
        self.output.line("relay up", f"{self.name} {what}; it is started again in {self.pause_seconds:.0f} s")
        self.start_at = time.monotonic() + self.pause_seconds
        self.pause_seconds = min(LONGEST_PAUSE_SECONDS, self.pause_seconds * 2)


@click.command(cls=Verb, short_help="Keeps the whole system running here, for development.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=env_file.DEFAULT_FOLDER,
              metavar="DIR", help=f"Where the data is kept; default ./{env_file.DEFAULT_FOLDER}.")  # fmt: skip
@click.option(option("postgres_url"), "postgres_url", metavar="URL", help="Use this database, not one of its own.")
@click.option(option("broker_url"), "broker_url", metavar="URL", help="Use this broker, not a Redis of its own.")
def up(data: Path, postgres_url: str | None, broker_url: str | None) -> None:
    """Runs PostgreSQL, Redis, relay-scheduler, workers and relay api here until Ctrl-C: for development.

    Data is kept in the folder, so the next start goes on with it. Applies the migrations, shows the logs, starts again
    what dies. Prints the URLs, and writes them to DIR/env (mode 600): every verb that is started where ./tide-data/env
    is, and that is given no URL, uses that database. URLs in the environment are not used here: give them as options.
    Needs tide-relay[embedded] unless both URLs are given.

    \b
    Exit codes: 0 stopped by Ctrl-C or SIGTERM; 1 cannot start; 2 wrong usage.

    \b
    Example:
      relay up
      relay up --postgres-url postgresql://app@localhost/app --broker-url redis://localhost:6379/0
    """
    with Stop() as stop, _folder(data) as folder, ExitStack() as stack:
        stop.on_signals()
        output = Output()
        kept: list[Kept] = []

        def run(name: str, part: Part) -> None:
            stack.callback(part.stop)
            kept.append(Kept(name, part, output))
            kept[-1].start()

        if not postgres_url:
            tell(f"starting PostgreSQL in {folder}")
            postgres = EmbeddedPostgres(folder / "postgres")
            run("PostgreSQL", postgres)
            postgres_url = postgres.url
        if not broker_url:
            redis = EmbeddedRedis(folder / "redis", persistent=True)
            run("Redis", redis)
            broker_url = redis.url
        settings = _settings(postgres_url, broker_url)
        for name in migrate(settings.postgres_url).names:
            tell(f"applied migration {name}")
        stack.callback(env_file.remove, folder)
        env_file.write(folder, {"postgres_url": postgres_url, "broker_url": broker_url})
        _announce(folder, settings)
        for name, make in _programs().items():
            lines = output.of(name)
            run(name, make(settings, on_output=lines, on_log=lines, inherit=True))
        _keep_running(stop, kept, settings, output)
        tell("stopping")


def _programs() -> dict[str, Callable[..., Program]]:
    """By name. Webhooks are received where the extra `api` is installed."""
    programs: dict[str, Callable[..., Program]] = {"scheduler": make_scheduler, "workers": make_workers}
    return programs | {"api": make_api} if importlib.util.find_spec("fastapi") else programs


def _keep_running(stop: Stop, kept: list[Kept], settings: Settings, output: Output) -> None:
    ready = False
    while not stop.wait(LOOK_SECONDS):
        for part in kept:
            part.look()
        if not ready and _scheduler_is_ready(settings.metrics_addr):
            ready = True
            output.line("relay up", "ready; Ctrl-C stops everything")


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """The folder, for us alone while we run; invisible to git."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    with only_one(folder / "lock", f"another relay up runs in {folder}"):
        yield folder.resolve()


def _settings(postgres_url: str, broker_url: str) -> Settings:
    """Addresses that were not chosen are on this machine alone, and move away from one that is in use."""
    chosen = Settings.load(postgres_url=postgres_url, broker_url=broker_url)
    addresses = {}
    for field in ("metrics_addr", "worker_metrics_addr", "api_addr", "api_metrics_addr"):
        default = Settings.model_fields[field].default
        if getattr(chosen, field) == default:
            _, port = parse_address(default)
            addresses[field] = f"127.0.0.1:{port if port_is_free(port) else free_port()}"
    return Settings.load(postgres_url=postgres_url, broker_url=broker_url, **addresses)


def _announce(folder: Path, settings: Settings) -> None:
    where = env_file.DEFAULT_FOLDER.resolve()
    here = "in this folder" if folder == where else f"after: . {folder / env_file.NAME}"
    click.echo(f"""
  PostgreSQL         {settings.postgres_url}
  broker             {settings.broker_url}
  scheduler metrics  http://{settings.metrics_addr}/metrics
  workers metrics    http://{settings.worker_metrics_addr}/metrics
  webhooks           http://{settings.api_addr}/hooks/

Other verbs find the database by themselves {here}. Elsewhere, first:
""")
    for line in env_file.exports({"postgres_url": settings.postgres_url, "broker_url": settings.broker_url}):
        click.echo(f"  {line}")
    click.echo("")


def _scheduler_is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(*parse_address(address), timeout=1)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
