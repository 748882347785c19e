"""The command `dramatiq`, as `relay workers` runs it: told to stop while it starts, it stops; and its own lines are
JSON, for workers that log in JSON.

Dramatiq writes a few lines before it imports `relay.workers`, and its master process never imports it. Worker processes
are forked, so that they have what is replaced here.
"""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TextIO

from dramatiq import cli

from relay.errors import ConfigError
from relay.process.logs import cannot_start, configure_logging
from relay.settings import Settings

Setup = Callable[[Namespace, int, Any], logging.Logger]
Body = Callable[..., None]


def main() -> int:
    try:
        settings = Settings.load()
    except ConfigError as error:
        cannot_start("relay.workers", str(error))
    cli.worker_process = deaf_until_it_can_stop(cli.worker_process)
    if settings.log_format == "json":
        _log_in_json(settings)
    run: Callable[[], int | None] = cli.main
    try:
        return run() or 0
    except PermissionError as error:
        if error.filename is not None:
            raise
        # After SIGHUP Dramatiq starts itself again as a program, and this file is none.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def deaf_until_it_can_stop(worker_process: Body) -> Body:
    """Dramatiq's worker processes hear signals before they have the logger that their handler uses: one that was told
    to stop right then ended by a NameError, and its master waited half a minute for it to have started. These hear them
    when `relay.workers` has its own handler, or at the latest when it is imported."""

    def body(*arguments: Any) -> None:
        hear: Callable[[], None] = cli.try_unblock_signals
        load: Callable[[str], Any] = cli.import_broker

        def load_broker(value: str) -> Any:
            loaded = load(value)
            hear()
            return loaded

        cli.try_unblock_signals, cli.import_broker = lambda: None, load_broker
        worker_process(*arguments)

    return body


def _log_in_json(settings: Settings) -> None:
    def master(_args: Namespace, *, stream: TextIO = sys.stderr) -> logging.Logger:
        configure_logging(settings, stream)
        return logging.getLogger("dramatiq.MainProcess")

    def in_json(setup: Setup) -> Setup:
        def of_child(args: Namespace, number: int, pipe: Any) -> logging.Logger:
            args.skip_logging = True
            logger = setup(args, number, pipe)
            configure_logging(settings)
            return logger

        return of_child

    cli.setup_parent_logging = master
    cli.setup_worker_logging = in_json(cli.setup_worker_logging)
    cli.setup_fork_logging = in_json(cli.setup_fork_logging)


if __name__ == "__main__":
    sys.exit(main())
