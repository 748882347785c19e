"""A server process of our own: a data folder, a port and a password kept in it, and a guaranteed end.

It listens on 127.0.0.1 only, and requires a password that was generated for its folder (kept there, mode 600). The port
is kept there too, so that a URL stays valid over restarts. It ends with the process that started it, even if that is
killed: a guard waits for its end.
"""

import atexit
import contextlib
import itertools
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from relay.errors import ConfigError, NotConnected
from relay.local import own_folder

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0


class ServerProcess(ABC):
    """One server process. `start` returns when it answers, `stop` and `kill` when it is gone; each may be repeated.

    One object for each data folder, one thread at a time. As a context manager it starts and stops.
    """

    stop_signal: ClassVar[signal.Signals]
    kill_signal: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.log = self.data_dir / "server.log"
        self.password = ""
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect, with the password. Valid once started; it stays the same for a data folder."""

    @property
    def pid(self) -> int | None:
        """Of the running server; None when there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Raises MissingExtra, ConfigError when a person must act, NotConnected with the end of the log otherwise."""
        if self.pid is not None:
            return self
        self.kill()
        with contextlib.suppress(FileExistsError):
            own_folder.make(self.data_dir, self.group())
        self.password = self._keep("password", secrets.token_urlsafe(18))
        self.port = int(self._keep("port", str(free_port())))
        command, options = self.prepare()
        if not port_is_free(self.port):
            raise ConfigError(
                f"port {self.port}, which is kept for {self.data_dir}, is in use: stop the other program (it may be "
                f"this server, started elsewhere), or remove {self.data_dir / 'port'} to get another port"
            )
        with self.open_log() as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, umask=0o077,
                **options,
            )  # fmt: skip
        self._owner_pid = os.getpid()
        self._guard = guard(self._process.pid, self.kill_signal)
        atexit.register(self.kill)
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Gracefully: disconnects clients, and writes everything to disk."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """At once, as in a crash."""
        self._end(self.kill_signal)

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        """Prepares the data folder; returns the command and the options of its process."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can serve now. Called repeatedly while it starts; must return quickly."""

    def group(self) -> int | None:
        """The group that has to pass through the data folder; None if no one but us."""
        return None

    def open_log(self) -> BinaryIO:
        """To append to it. Only we may read it."""
        return open(self.log, "ab", opener=own_folder.private)

    def failed(self, what: str) -> NotConnected:
        """The error to raise, with the end of the log in it."""
        lines = self.log.read_text(errors="replace").splitlines()[-20:] if self.log.exists() else []
        end_of_log = "\n  ".join([f"\nthe end of {self.log}:", *lines]) if lines else ""
        return NotConnected(f"{type(self).__name__} in {self.data_dir} {what}{end_of_log}", code="start_failed")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.answers():
            ended = self.pid is None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise self.failed("ended at once" if ended else f"did not answer for {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.01)

    def _end(self, number: signal.Signals) -> None:
        # A forked child inherits this object and its exit handler, but not the server.
        if self._process is None or self._owner_pid != os.getpid():
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_SECONDS)
        self._process = None
        atexit.unregister(self.kill)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()

    def _keep(self, name: str, value: str) -> str:
        """What the data folder keeps under this name: `value`, if it is the first."""
        path = self.data_dir / name
        own_folder.write_new(path, value)
        return path.read_text()


# Each port comes once before any comes again, in a different order in each process: random draws would sooner or later
# give the same port to two servers before either listens.
ports = itertools.cycle(random.sample(range(15_000, 32_000), 17_000))


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens.

    Below the range of ports for outgoing connections: while a server is down between stop and start, no other process
    gets its port, and a client that tries to reach it cannot connect to itself.
    """
    return next(filter(port_is_free, ports))


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def guard(pid: int, number: signal.Signals) -> "subprocess.Popen[bytes]":
    """Waits for the end of this process, which closes the pipe, and then ends the server."""
    script = 'trap "" HUP INT TERM; read _; kill -"$2" "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "guard", str(pid), str(int(number))],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
