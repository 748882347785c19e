"""The standard output sink: one line for each record, for demos, containers and pipes.

It writes to descriptor 1 itself: inside a worker `sys.stdout` is Dramatiq's wrapper, whose text goes through the
logging of the master process. Delivered means that the system took the bytes; it is not known who read them.
"""

import os
import select
import stat
import threading
import time
from collections.abc import Sequence
from typing import ClassVar

from relay.backends.common.lines import as_lines, write_whole
from relay.backends.common.os_errors import translate
from relay.backends.sink import Features, Sink
from relay.backends.stdio.config import StdoutSinkConfig
from relay.errors import NotConnected
from relay.models import Failure, Record

# A pipe takes this much (PIPE_BUF, pipe(7)) in one piece, and without blocking once poll() says it has room.
_PIECE_BYTES = select.PIPE_BUF

# All pipelines of a process share the one standard output.
_one_at_a_time = threading.Lock()


class StdoutSink(Sink[StdoutSinkConfig]):
    features: ClassVar[Features] = Features(uses_network=False, default_wire_format="envelope", default_subject="")
    config_model = StdoutSinkConfig
    fd: ClassVar[int] = 1

    def __init__(self, config: StdoutSinkConfig, pipeline: str) -> None:
        self._timeout_seconds = config.timeout_ms / 1000
        self._where = f"pipeline {pipeline!r}: standard output"
        self._open = False
        self._is_file = False
        # A write that failed halfway left a partial line; the next begins with a newline, to keep it apart.
        self._mid_line = False

    def open(self) -> None:
        try:
            self._is_file = stat.S_ISREG(os.fstat(self.fd).st_mode)
        except OSError as error:
            raise translate(error, self._where, opening=True) from error
        self._open = True

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        if not self._open:
            raise NotConnected(f"{self._where}: not open", code="closed")
        if not records:
            return []
        deadline = time.monotonic() + self._timeout_seconds
        data = as_lines(records)
        if not _one_at_a_time.acquire(timeout=self._timeout_seconds):
            raise self._stuck()
        try:
            self._write(b"\n" + data if self._mid_line else data, deadline)
        except OSError as error:
            raise translate(error, self._where, opening=False) from error
        finally:
            _one_at_a_time.release()
        return []

    def close(self) -> None:
        self._open = False

    def _write(self, data: bytes, deadline: float) -> None:
        if self._is_file:
            write_whole(self.fd, data)
            return
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        begin = 0
        while begin < len(data):
            if not self._open:
                raise NotConnected(f"{self._where}: closed during a publish", code="closed")
            end = _end_of_piece(data, begin)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise self._stuck()
            begin += os.write(self.fd, data[begin:end])
            self._mid_line = data[begin - 1 : begin] != b"\n"

    def _stuck(self) -> NotConnected:
        return NotConnected(
            f"{self._where}: its reader took nothing for {self._timeout_seconds * 1000:.0f} ms", code="timeout"
        )


def _end_of_piece(data: bytes, begin: int) -> int:
    """Whole lines where they fit: a piece is written undivided, so lines of several processes do not mix."""
    if len(data) - begin <= _PIECE_BYTES:
        return len(data)
    return data.rfind(b"\n", begin, begin + _PIECE_BYTES) + 1 or begin + _PIECE_BYTES
