"""Start and stop, written once: signals in, an event out; the second signal means now.

    with Stop() as stop:
        stop.on_signals()
        while not stop.wait(timeout_seconds=1.0):
            ...

Not a `threading.Event`: setting one from a signal handler can deadlock with the very wait that it interrupts.
A pipe cannot, and a `select` that watches a PostgreSQL connection can watch it too.
"""

import multiprocessing
import os
import select
import signal
import time
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Self


class Stop:
    """An event that is set once and stays set, by `set()` or by a signal. Every method is safe from any thread."""

    signal_number: int | None
    """The first signal that came, for logs; None if there was none."""

    def __init__(self) -> None:
        self.signal_number = None
        self._set = False
        self._before: dict[int, object] = {}
        self._read_fd, self._write_fd = os.pipe()
        self._close_pipe = weakref.finalize(self, _close_pipe, self._read_fd, self._write_fd)

    def on_signals(self, signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT)) -> None:
        """The first of these signals sets the event; the second ends the process at once, with status 128 + signal.

        Only the main thread may call it. `close()` puts the earlier handlers back.
        """
        for number in signals:
            self._before.setdefault(number, signal.signal(number, self._on_signal))

    def set(self) -> None:
        if not self._set:
            self._set = True
            if self._close_pipe.alive:
                os.write(self._write_fd, b"!")

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Waits until the event is set, or for `timeout_seconds`; says whether it is set.

        Raises ValueError after `close`.
        """
        if not self._set:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            poll.poll(None if timeout_seconds is None else max(0.0, timeout_seconds) * 1000)
        return self._set

    def fileno(self) -> int:
        """A descriptor that becomes readable, and stays so, when the event is set: for `select`.

        Read nothing from it. Raises ValueError after `close`.
        """
        if not self._close_pipe.alive:
            raise ValueError("this Stop is closed")
        return self._read_fd

    def close(self) -> None:
        """Puts the earlier signal handlers back. May be called twice; `is_set` still answers afterwards."""
        for number in list(self._before):
            signal.signal(number, self._before.pop(number))  # type: ignore[arg-type]  # it came from signal.signal
        self._close_pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            os._exit(128 + number)
        self.signal_number = number
        self.set()


def wait_for_end_of_parent() -> None:
    """Returns within a second after the process that started this one by `multiprocessing` is gone.

    Not by the parent's sentinel: under fork, the siblings hold its other end too.
    """
    parent = multiprocessing.parent_process()
    while parent and os.getppid() == parent.pid:
        time.sleep(1)


def _close_pipe(read_fd: int, write_fd: int) -> None:
    os.close(read_fd)
    os.close(write_fd)
