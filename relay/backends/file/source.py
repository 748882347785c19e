"""The file source: one message for each line of a file, followed over its rotations, each once.

The position stored with the rows says how far the file was read (`tail.py`), so nothing has to be acknowledged.
Lines are read where they stand, in the worker's own file system.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from relay.backends.common.os_errors import OS_ERRORS
from relay.backends.file.config import FileSourceConfig
from relay.backends.file.lines import Line
from relay.backends.file.tail import Mark, Tail
from relay.backends.source import MAX_HELD_BYTES, Source, SourceFeatures
from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Received
from relay.wire import byte_order_mark


class Fetched(NamedTuple):
    """A line as it was read, with its position."""

    line: Line
    mark: Mark
    number: int
    """Over all openings."""


class FileSource(Source[FileSourceConfig, Fetched]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        has_positions=True,
        redelivers=False,
        needs_source=True,
        uses_network=False,
        one_lane="a file is read from one place on",
    )
    config_model = FileSourceConfig
    needs_operator = OS_ERRORS.needs_operator

    def __init__(self, config: FileSourceConfig, pipeline: str) -> None:
        self._config = config
        self._path = self._config.path
        self._where = f"pipeline {pipeline!r}: file {self._path!r}"
        self._tail: Tail | None = None
        self._number = 0
        """Of the last message handed out, over all openings."""
        self._done_number = 0
        """Of the last one that is done; those before it are too."""
        self._done: str | None = None
        """Its position."""
        self._must_reopen = False
        # close() may come from another thread while this one is in receive().
        self._busy = threading.Lock()
        self._closing = threading.Event()

    def open(self, positions: Mapping[str, str]) -> None:
        self.close()
        with self._busy:
            self._closing.clear()
            self._done = positions.get(self._path)
            self._done_number = self._number
            self._tail = self._opened_tail()

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Fetched]:
        deadline = time.monotonic() + wait_seconds
        with self._busy:
            while True:
                found = self._read(self._usable(), max_messages)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._closing.wait(min(left, self._config.poll_ms / 1000))

    def convert(self, message: Fetched) -> Received:
        return self.bare(message)  # a line has nothing else

    def bare(self, message: Fetched) -> Received:
        line, mark, number = message
        body = line.body.removeprefix(byte_order_mark.BYTES)
        # The checksum distinguishes lines of files that had the same inode one after the other.
        name = f"{self._path}/{mark.inode}.{mark.generation}/{line.start}.{line.crc:08x}"
        return Received(name, body, {}, None, self._path, self._path, str(mark), number)

    def ack(self, received: Sequence[Received]) -> None:
        if self._tail is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        for message in received:
            if message.token > self._done_number:
                self._done_number, self._done = message.token, message.position

    def release(self) -> None:
        # What was handed out and is not done is read again.
        self._must_reopen = self._tail is not None and self._done_number < self._number

    def close(self) -> None:
        self._closing.set()
        with self._busy:
            tail, self._tail = self._tail, None
            self._must_reopen = False
            if tail is not None:
                tail.close()

    def _usable(self) -> Tail:
        if self._tail is None or self._closing.is_set():
            raise NotConnected(f"{self._where}: not open", code="closed")
        if self._must_reopen:
            self._tail.close()
            try:
                self._tail = self._opened_tail()
            except ConfigError as error:
                raise NotConnected(str(error), code="no_file") from error
            self._done_number = self._number
            self._must_reopen = False
        return self._tail

    def _opened_tail(self) -> Tail:
        config = self._config
        tail = Tail(
            self._path,
            self._where,
            max_line_bytes=config.max_line_bytes,
            follow=config.follow,
            settle_seconds=config.rotate_wait_ms / 1000,
        )
        try:
            tail.open(self._done)
        except OSError as error:
            tail.close()
            raise self._translated(error, opening=True) from error
        except ConfigError:
            tail.close()
            raise
        return tail

    def _read(self, tail: Tail, max_messages: int) -> list[Fetched]:
        try:
            lines = tail.read(max_messages, MAX_HELD_BYTES) or tail.advance(max_messages, MAX_HELD_BYTES)
            lines = lines or tail.read(max_messages, MAX_HELD_BYTES)
        except OSError as error:
            raise self._translated(error, opening=False) from error
        first = self._number + 1
        self._number += len(lines)
        return [Fetched(line, mark, number) for number, (line, mark) in enumerate(lines, first)]

    def _translated(self, error: OSError, *, opening: bool) -> RelayError:
        if isinstance(error, FileNotFoundError):
            hint = "; create it (touch), or correct path; workers read it in their own file system"
        elif isinstance(error, PermissionError):
            hint = "; let the user that runs the workers read it"
        else:
            hint = ""
        return OS_ERRORS.translated(error, self._where, opening=opening, reason=f"{error.strerror or error}{hint}")
