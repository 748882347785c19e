"""What runs in the tests of stopping: the workers, as `relay workers` runs them, with something in their way.

python -m tests.process.stop_app relay.workers -p 1             told to stop while it cannot log yet
dramatiq relay.workers tests.process.stop_app                   whose stop hangs
"""

import os
import signal
import sys
import threading
from typing import Any

import dramatiq
from dramatiq import cli
from dramatiq.middleware import Middleware

from relay.process import dramatiq_command, worker_stop


class Hanging(Middleware):
    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        threading.Event().wait()


def told_at_its_begin(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # which Dramatiq's master has blocked
    worker_process(*arguments)


if __name__ == "__main__":
    worker_process, cli.worker_process = cli.worker_process, told_at_its_begin
    sys.exit(dramatiq_command.main())
worker_stop.MARGIN_SECONDS = 0.1
dramatiq.get_broker().add_middleware(Hanging())
