"""`relay workers`: the dramatiq command, with our settings in place of its defaults."""

import os
import sys

import click

from relay.broker.queues import check_queues
from relay.cli.base import Verb, broker_option, load_settings, postgres_option
from relay.errors import ConfigError
from relay.local.programs import worker_environment, workers_command
from relay.process.logs import cannot_start


@click.command(cls=Verb, short_help="Runs the workers.")
@postgres_option
@broker_option
@click.option(
    "--worker-processes",
    "--processes",
    "worker_processes",
    metavar="N",
    help="Default: the number of CPUs that this process may use.",
)
@click.option(
    "--worker-threads",
    "--threads",
    "worker_threads",
    metavar="N",
    help="How many drains each process runs at a time; default 8.",
)
@click.option(
    "--queues",
    multiple=True,
    metavar="NAMES",
    help="Serve only these of tide.forward, tide.reverse, tide.jobs, tide.streams and tide.maintenance, with commas; "
    "default all.",
)
@click.option(
    "--jobs",
    "--job-modules",
    "job_modules",
    multiple=True,
    metavar="MODULE",
    help="Run jobs, with the handlers of this Python module; may be given several times.",
)
@click.option(
    "--job-queues",
    metavar="NAMES",
    help="Run the jobs of these queues, separated by commas, or of all: '*'. Default: those of the handlers.",
)
def workers(queues: tuple[str, ...], job_modules: tuple[str, ...], **given: str | None) -> None:
    """Runs the workers: dramatiq relay.workers, with processes, threads and shutdown timeout from the settings.

    Without these settings, dramatiq starts one process for each CPU of the host, and waits ten minutes for a worker
    that stops. This process becomes dramatiq. SIGTERM or SIGINT stops it gracefully, also if its whole group is told;
    the third stops it immediately.

    \b
    Exit codes: those of dramatiq; 1 cannot start; 2 wrong usage.

    \b
    Example:
      relay workers --processes 2 --threads 8
      relay workers --queues tide.forward,tide.maintenance
      relay workers --jobs shop.jobs
    """
    names = [name.strip() for given_names in queues for name in given_names.split(",") if name.strip()]
    try:
        settings = load_settings(job_modules=",".join(job_modules) or None, **given)
        check_queues(names, jobs=settings.runs_jobs)
    except ConfigError as error:
        cannot_start("relay workers", str(error))
    os.environ.update(worker_environment(settings))
    command = workers_command(settings, names)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606
