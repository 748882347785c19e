"""The command `dramatiq`, whose own lines are JSON too: for workers that log in JSON.

Dramatiq writes a few lines before it imports `relay.workers`, and its master process never imports it. Worker processes
are forked, so that they have what is replaced here.
"""

import logging
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TextIO

from dramatiq import cli

from relay.errors import ConfigError
from relay.process.logs import cannot_start, configure_logging
from relay.settings import Settings

Setup = Callable[[Namespace, int, Any], logging.Logger]


def main() -> int:
    try:
        settings = Settings.load()
    except ConfigError as error:
        cannot_start("relay.workers", str(error))

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
    run: Callable[[], int | None] = cli.main
    return run() or 0


if __name__ == "__main__":
    sys.exit(main())
