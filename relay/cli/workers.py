"""`relay workers`: the dramatiq command, with our settings in place of its defaults."""

import os
import sys
from collections.abc import Sequence

import click

from relay.broker.queues import check_queues
from relay.cli.base import Verb, broker_option, load_settings, postgres_option
from relay.settings import Settings, variables


@click.command(cls=Verb, short_help="Runs the workers.")
@postgres_option
@broker_option
@click.option(
    "--worker-processes",
    "--processes",
    "worker_processes",
    metavar="N",
    help="Default: the CPUs that this process may use.",
)
@click.option(
    "--worker-threads",
    "--threads",
    "worker_threads",
    metavar="N",
    help="Drains that each process runs at a time; default 8.",
)
@click.option(
    "--queues",
    multiple=True,
    metavar="NAMES",
    help="Serve these only: of tide.forward, tide.reverse and tide.maintenance, with commas between; default all.",
)
def workers(queues: tuple[str, ...], **given: str | None) -> None:
    """Runs the workers: dramatiq relay.workers, with processes, threads and shutdown timeout from the settings.

    On its own, dramatiq starts one process for each CPU of the host and gives a stopping worker ten minutes.
    Replaces this process by dramatiq, so SIGTERM and SIGINT stop it in good order, and a second one at once.

    \b
    Exit codes: those of dramatiq; 1 cannot start; 2 wrong usage.

    \b
    Example:
      relay workers --processes 2 --threads 8
      relay workers --queues tide.forward,tide.maintenance
    """
    names = [name.strip() for given_names in queues for name in given_names.split(",") if name.strip()]
    check_queues(names)
    settings = load_settings(**given)
    os.environ.update(environment(settings))
    command = command_line(settings, names)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606


def command_line(settings: Settings, queues: Sequence[str] = ()) -> list[str]:
    """The command that runs the workers. URLs are not on it: every user of the machine can read a command line."""
    # -P, and --path with nothing: a folder `workers` where somebody stands must not be taken for ours.
    return [
        sys.executable, "-P", "-m", "dramatiq", "relay.workers", "--path",
        "--processes", str(settings.worker_processes), "--threads", str(settings.worker_threads),
        "--worker-shutdown-timeout", str(round(settings.worker_shutdown_timeout_seconds * 1000)),
        *(["--queues", *queues] if queues else []),
    ]  # fmt: skip


def environment(settings: Settings) -> dict[str, str]:
    """What the worker processes must find in their environment."""
    fields = ("postgres_url", "broker_url", "worker_processes", "worker_threads")
    return {variables(field)[0]: str(getattr(settings, field)) for field in fields}
