"""Python programs that begin with their libraries imported: each is a fork of one process that has done it, the stem.

To import what a scheduler or a worker needs takes most of a second of processor time; the tests start hundreds of them.
A program is a process of its own all the same, which can be killed, frozen and stopped like any other: it has its own
session, environment, folder and output, no connection and no thread from before, and its exit is that of an
interpreter. Its parent is a small process that waits for its end.
"""

import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.paths import ROOT

# None of them imports prometheus_client, which decides by the environment, when it is imported, where numbers are kept.
LIBRARIES = (
    "asyncio", "concurrent.futures", "dramatiq.cli", "fastapi", "h11", "psycopg", "psycopg_pool", "rich.console",
    "rich.traceback", "uvicorn", "relay.backends.registry", "relay.broker.factory", "relay.broker.redis",
    "relay.cli.api", "relay.database.connection", "relay.database.migrate", "relay.drains.redelivery", "relay.inbox",
    "relay.jobs.registry", "relay.pipelines.jobs", "relay.process.logs", "relay.process.worker_health",
    "relay.process.worker_metrics", "relay.process.worker_presence", "relay.wire.decode",
)  # fmt: skip
ENDED_UNSEEN = -signal.SIGKILL
SHOW_STACKS = signal.SIGUSR2
"""Has a forked program, and what it forks, write to its output where its threads are."""


class Forked:
    """A running program, as `subprocess.Popen` shows it."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self._exit_code: int | None = None
        self.pid = int(answers.readline())

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._exit_code

    def wait(self, timeout: float) -> int:
        """The exit code; of one that a signal has ended, its number below zero. Raises TimeoutExpired."""
        if self._exit_code is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked program", timeout)
            self._exit_code = int(self._answers.readline() or ENDED_UNSEEN)
            self._answers.close()
        return self._exit_code


def launch(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], folder: Path = ROOT
) -> "Forked | subprocess.Popen[bytes]":
    """A program in a session of its own, forked where it can be; both its outputs go to `output`."""
    if can_be_forked(command, environment, folder):
        return fork(command, environment, output)
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        start_new_session=True,
    )  # fmt: skip


def can_be_forked(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> bool:
    """Whether it is a module of this checkout, run by this Python with the options of the stem."""
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    python = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    return list(command[:2]) == [sys.executable, "-m"] and python == ours and folder == ROOT


def fork(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> Forked:
    """Starts `python -m MODULE ARGUMENTS...` in the folder of the checkout; both its outputs go to `output`."""
    reader, writer = os.pipe()
    request = json.dumps([list(command[2:]), dict(environment)]).encode()
    with os.fdopen(writer, "w") as answers:
        stem = _stem()
        socket.send_fds(stem, [len(request).to_bytes(4)], [output.fileno(), answers.fileno()])
        stem.sendall(request)
    return Forked(os.fdopen(reader))


@functools.cache
def _stem() -> socket.socket:
    ours, its = socket.socketpair()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(its.fileno())],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()], start_new_session=True,
    )  # fmt: skip
    its.close()

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


# In the stem -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Serves requests until its parent is gone; in a fork of its own, goes on as the program that was asked for."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    for library in LIBRARIES:
        importlib.import_module(library)
    assert "prometheus_client" not in sys.modules
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a program is not waited for
    while True:
        length, descriptors, _, _ = socket.recv_fds(requests, 4, 2)
        if not length:
            return
        request = requests.recv(int.from_bytes(length), socket.MSG_WAITALL)
        if os.fork() == 0:
            requests.close()
            _become(*json.loads(request), *descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _become(arguments: list[str], environment: dict[str, str], output: int, answers: int) -> None:
    """Forks once more: the child goes on as the program, and the parent says what became of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = os.fork()
    if program:
        os.close(output)
        os.write(answers, b"%d\n" % program)
        ended = os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
        assert ended
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        os.write(answers, b"%d\n" % code)
        # As with any child, its number is its own until its exit code was read: a signal to it is no error.
        read = select.poll()
        read.register(answers, 0)
        read.poll()
        os.waitpid(program, 0)
        os._exit(0)
    os.setsid()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.close(answers)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.register(SHOW_STACKS)
    # By it the processes of one group of workers know each other.
    multiprocessing.current_process().authkey = os.urandom(32)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
