"""The command `dramatiq`, whose own lines are JSON too: for workers that log in JSON.

Dramatiq writes a few lines before it imports `relay.workers`, and its master process never imports it. Worker processes
are forked, so that they have what is replaced here.
"""

import logging
import sys
from argparse import Namespace
from typing import Any, TextIO

from dramatiq import cli

from relay.errors import ConfigError
from relay.process.logs import cannot_start, configure_logging
from relay.settings import Settings


def main() -> int:
    try:
        settings = Settings.load()
    except ConfigError as error:
        cannot_start("relay.workers", str(error))

    def master(_args: Namespace, *, stream: TextIO = sys.stderr) -> logging.Logger:
        configure_logging(settings, stream)
        return logging.getLogger("dramatiq.MainProcess")

    def child(args: Namespace, worker_id: int, pipe: Any) -> logging.Logger:
        args.skip_logging = True
        logger: logging.Logger = worker(args, worker_id, pipe)
        configure_logging(settings)
        return logger

    worker = cli.setup_worker_logging
    cli.setup_parent_logging, cli.setup_worker_logging = master, child
    return int(cli.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
