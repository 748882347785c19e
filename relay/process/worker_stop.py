"""How a worker process of Dramatiq is told to stop: once, however often it is said, and with a limit.

What stops a service tells each of its processes (systemd, an init that signals the group, a shell), and Dramatiq's
master passes on what it was told: one request is two signals. Dramatiq takes the second for "at once", and raises
SystemExit wherever the main thread is: batches were cut off, and jobs not handed back, whenever workers were a service.

Here the second signal changes nothing, and the third, which can only be another request, ends the process. So does a
stop that takes longer than everything in it may, and then the log shows where the main thread is. Leases cover the
rest, as after a crash.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import dramatiq
import structlog
from dramatiq.cli import make_argument_parser
from dramatiq.middleware import Middleware

from relay.process.stop import Stop

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Dramatiq's worker processes ignore SIGINT: their master makes SIGTERM of it."""
AT_ONCE = 3
MARGIN_SECONDS = 12.0
"""What a stop may take beyond its drains and jobs: to close connections, and to say that it has ended."""
TELL_SECONDS = 2.0
BEGIN_SECONDS = 5.0

Handler = Callable[[int, FrameType | None], Any]

log = structlog.get_logger(__name__)


class WorkerStop(Middleware):
    """Of this process. In the main thread call `hear` first of all, and `watch` when the settings are known."""

    def __init__(self) -> None:
        self._told = 0
        self._stop = Stop()
        self._asked = threading.Lock()
        self._dramatiq: Handler | None = None

    def hear(self) -> None:
        """From now on signals mean what is said above. Does nothing in a process that Dramatiq has not started."""
        if multiprocessing.parent_process() is None:
            return
        for number in SIGNALS:
            before = signal.signal(number, self._on_signal)
            self._dramatiq = before if callable(before) else self._dramatiq
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `relay.process.dramatiq_command`

    def ask(self) -> None:
        """Stops this process, from any thread, if it is not stopping yet."""
        if not self._told and self._asked.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGTERM)

    def watch(self, jobs_seconds: float) -> None:
        """Limits the time of a stop, of which jobs may take so long, and drains as the command line says."""
        if multiprocessing.parent_process() is not None:
            limit = max(_shutdown_timeout_seconds(), jobs_seconds) + MARGIN_SECONDS
            threading.Thread(target=self._end_late, args=(limit,), name="end-of-stop", daemon=True).start()

    def before_worker_shutdown(self, _broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Dramatiq stops a thread by the flag that the thread sets when it begins: one that is told before that never
        ends. So all must have begun."""
        threads: list[Any] = [*worker.workers, *worker.consumers.values()]
        deadline = time.monotonic() + BEGIN_SECONDS
        while any(thread.is_alive() and not thread.running for thread in threads) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told += 1
        if self._told >= AT_ONCE:
            os._exit(128 + number)
        if self._told == 1:
            self._stop.set()
            if self._dramatiq is not None:
                self._pass_on(number, frame, self._dramatiq)

    def _pass_on(self, number: int, frame: FrameType | None, handler: Handler) -> None:
        try:
            handler(number, frame)
        except SystemExit:  # one that came before `hear` was the first
            self._told += 1

    def _end_late(self, limit_seconds: float) -> None:
        self._stop.wait()
        time.sleep(limit_seconds)
        # By another thread: it waits indefinitely if the log is what the main thread hangs at.
        teller = threading.Thread(target=_tell, args=(limit_seconds,), daemon=True)
        teller.start()
        teller.join(TELL_SECONDS)
        os._exit(1)


def _shutdown_timeout_seconds() -> float:
    """Of the dramatiq command, whose command line its children have."""
    parser = make_argument_parser()  # type: ignore[no-untyped-call]
    return int(parser.parse_known_args(sys.argv[1:])[0].worker_shutdown_timeout) / 1000


def _tell(limit_seconds: float) -> None:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    log.critical(
        "a worker process did not stop in time and is ended; what it had in hand comes again",
        seconds=limit_seconds,
        stack="".join(traceback.format_stack(frame)) if frame else "",
    )
