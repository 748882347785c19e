"""`relay up`: the whole system on this machine, kept running for development."""

import sys
from pathlib import Path
from threading import Lock

import click

from relay.cli.base import Verb, say, tell
from relay.local import env_file
from relay.local.up import OURS, Up
from relay.printable import printable_lines
from relay.process.stop import Stop
from relay.settings import Settings, option

COLOURS = {"scheduler": "cyan", "workers": "magenta", "api": "blue", OURS: "yellow"}


@click.command(cls=Verb, short_help="Keeps the whole system running here, for development.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=env_file.DEFAULT_FOLDER,
              metavar="DIR", help=f"Where the data is kept; default ./{env_file.DEFAULT_FOLDER}.")  # fmt: skip
@click.option(option("postgres_url"), "postgres_url", metavar="URL", help="Use this database, not one of its own.")
@click.option(option("broker_url"), "broker_url", metavar="URL", help="Use this broker, not a Redis of its own.")
@click.option("--jobs", multiple=True, metavar="MODULE",
              help="Run jobs too, with the handlers of this Python module; may be given several times.")  # fmt: skip
def up(data: Path, postgres_url: str | None, broker_url: str | None, jobs: tuple[str, ...]) -> None:
    """Runs PostgreSQL, Redis, relay-scheduler, workers and relay api here until Ctrl-C: for development.

    Keeps the data in the folder, so the next start continues with it. Applies the migrations, shows the logs, restarts
    what dies. Prints the URLs, and writes them to DIR/env (mode 600): every verb that is started where ./tide-data/env
    is, and is given no URL, uses that database. Ignores URLs in the environment: give them as options. Needs
    tide-relay[embedded] unless you give both URLs.

    \b
    Exit codes: 0 stopped by Ctrl-C or SIGTERM; 1 cannot start; 2 wrong usage.

    \b
    Example:
      relay up
      relay up --jobs shop.jobs
      relay up --postgres-url postgresql://app@localhost/app --broker-url redis://localhost:6379/0
    """
    with Stop() as stop:
        stop.on_signals()
        Up(
            data=data,
            postgres_url=postgres_url or None,
            broker_url=broker_url or None,
            job_modules=",".join(jobs) or None,
            stop=stop,
            tell=tell,
            announce=_announce,
            line=Output().line,
        ).run()


class Output:
    """Lines of all parts, each after the name of its part. A line stays whole, whichever threads write."""

    def __init__(self) -> None:
        self._lock = Lock()

    def line(self, part: str, text: str) -> None:
        with self._lock:
            click.echo(click.style(f"{part:<9} | ", fg=COLOURS.get(part)) + printable_lines(text))
            sys.stdout.flush()


def _announce(folder: Path, settings: Settings) -> None:
    where = env_file.DEFAULT_FOLDER.resolve()
    here = "in this folder" if folder == where else f"after: . {folder / env_file.NAME}"
    click.echo(
        printable_lines(f"""
  PostgreSQL         {settings.postgres_url}
  broker             {settings.broker_url}
  scheduler metrics  http://{settings.metrics_addr}/metrics
  workers metrics    http://{settings.worker_metrics_addr}/metrics
  webhooks           http://{settings.api_addr}/hooks/

Other verbs find the database automatically {here}. Elsewhere, run first:
""")
    )
    for line in env_file.exports({field: getattr(settings, field) for field in env_file.FIELDS}):
        say(f"  {line}")
    say("")
