"""The file sink: one line for each record, appended; on disk before a batch counts as delivered.

The invariant: the holder of the lock on the file begins a batch on a line of its own, and leaves the file ending in a
newline. A batch is one write under that lock, undone if it fails. So two writers (a paused worker that was fenced, and
the new owner of its pipeline) never mix within a line, and a crash leaves at most one partial last line, which the next
writer removes. What others wrote is never cut (`unfinished.py`): after a partial line of theirs comes a newline.
"""

import contextlib
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from relay.backends.common.deadline import in_ms, is_over
from relay.backends.common.lines import as_lines, write_whole
from relay.backends.common.os_errors import OS_ERRORS, translate
from relay.backends.file.config import FileSinkConfig
from relay.backends.file.unfinished import end_of_others, unfinished
from relay.backends.sink import Features, Sink
from relay.errors import ConfigError, NotConnected
from relay.models import Failure, Record
from relay.reach import check_sink_path

_LOCK_PAUSE_SECONDS = 0.005

log = logging.getLogger(__name__)


class FileSink(Sink[FileSinkConfig]):
    features: ClassVar[Features] = Features(uses_network=False, default_wire_format="envelope", default_subject="")
    config_model = FileSinkConfig
    needs_operator = OS_ERRORS.needs_operator

    def __init__(self, config: FileSinkConfig, pipeline: str) -> None:
        self._config = config
        self._path = self._config.path
        self._where = f"pipeline {pipeline!r}: file {self._path!r}"
        self._fd: int | None = None
        # Lets close() come from another thread: a descriptor that is closed under a write could belong to another file
        # by then.
        self._busy = threading.Lock()

    def open(self) -> None:
        self.close()
        with self._busy:
            try:
                with self._locked() as fd:
                    self._end(fd)
            except (OSError, ConfigError, NotConnected) as error:
                self._drop()
                if isinstance(error, OSError):
                    raise translate(error, self._where, opening=True) from error
                raise

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        with self._busy:
            if self._fd is None:
                raise NotConnected(f"{self._where}: not open", code="closed")
            if not records:
                return []
            data = as_lines(records)
            try:
                with self._locked() as fd:
                    self._append(fd, data)
            except OSError as error:
                raise translate(error, self._where, opening=False) from error
            except ConfigError as error:
                raise NotConnected(str(error), code="not_a_file") from error
        return []

    def close(self) -> None:
        with self._busy:
            self._drop()

    def _append(self, fd: int, data: bytes) -> None:
        start, is_line_end = self._end(fd)
        if not is_line_end:
            log.warning("%s: ends in a partial line that is not ours; beginning on a new one", self._where)
            data = b"\n" + data
        with unfinished(fd, start, data):
            write_whole(fd, data)
            if self._config.fsync:
                os.fsync(fd)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The descriptor of the file that is at the path now, locked against every other writer.

        Raises NotConnected if another keeps the lock for `timeout_ms`.
        """
        deadline = in_ms(self._config.timeout_ms)
        while True:
            fd = self._current()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if is_over(deadline):
                    raise NotConnected(
                        f"{self._where}: another process holds the lock for more than {self._config.timeout_ms} ms",
                        code="locked",
                    ) from None
                time.sleep(_LOCK_PAUSE_SECONDS)
                continue
            try:
                # It may have been rotated away between looking and locking: then lock the new one.
                if self._at_path(fd):
                    yield fd
                    return
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _current(self) -> int:
        """An open descriptor of the file at the path, which log rotation may have moved or removed."""
        if self._fd is not None and not self._at_path(self._fd):
            self._drop()
        if self._fd is None:
            self._fd = self._open_file()
        return self._fd

    def _open_file(self) -> int:
        try:
            path = check_sink_path(self._path)
        except ConfigError as error:
            raise ConfigError(f"{self._where}: {error}") from None
        # O_NONBLOCK: opening a named pipe would wait for its reader without end.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        fd = os.open(path, flags, int(self._config.permissions, 8))
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(
                    f"{self._where}: not a regular file; to write to the terminal or a pipe use sink_type 'stdout'"
                )
            if status.st_size == 0 and self._config.fsync:
                self._sync_folder()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _sync_folder(self) -> None:
        """Make the name of a new file durable; its contents alone would not survive a power failure."""
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _end(self, fd: int) -> tuple[int, bool]:
        """The size of the file, after removing a partial line that a crash of ours left; whether a line ends there."""
        end, is_line_end = end_of_others(fd)
        size = os.fstat(fd).st_size
        if end < size:
            os.ftruncate(fd, end)
            log.warning("%s: removed a partial last line of %d bytes, left by a crash", self._where, size - end)
        return end, is_line_end

    def _drop(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
