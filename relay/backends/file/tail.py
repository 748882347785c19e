"""One growing file over its rotations: which file is read now, which comes next, and where a stored position is found.

A position names the inode, the offset, and the last line before the offset by its checksum. Bytes that were read never
change in a file that is only appended to; so a file in which they differ, or which is shorter, has other content now.

- Renamed and created again: the old file is found by its inode among the files beside it, and read to its end first.
- Copied and truncated: the copy is found by that line, and the rest is read from it. What was written between the copy
  and the truncation is lost with any reader; this one cannot even see it.
- Files in between, rotated while nothing read them, follow in order of their last change.
"""

import contextlib
import logging
import os
import re
import stat
import time
import zlib
from typing import NamedTuple, Self

from relay.backends.file.lines import Line, Lines
from relay.errors import ConfigError
from relay.reach import check_source_path

log = logging.getLogger(__name__)

# What rotation appends to a name: `.1`, `-20250301`, `.2025-03-01T12:00`, `.old`. Compressed files cannot be read.
_ROTATED = re.compile(r"[._-](?:\d[\d.:T_-]*|old)")
_SEPARATORS = (".", "-", "_")
_NOT_READ = (".gz", ".xz", ".bz2", ".zst", ".lz4", ".zip", ".tmp", ".swp")


class Mark(NamedTuple):
    """A position: where the next line begins, and what tells that the file is still the same."""

    inode: int
    generation: int
    """How many files were read before this one: the same inode comes again with other content."""
    offset: int
    start: int
    """Of the last line before `offset`."""
    size: int
    """Of its body; 0 where nothing was read yet."""
    crc: int
    changed_ns: int
    """When the file was last changed, as of reading: files that were changed later were not read yet."""

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(*(int(part) for part in text.split(":")))

    def __str__(self) -> str:
        return ":".join(map(str, self))

    def fits(self, fd: int) -> bool:
        """Whether what was read is still there."""
        if os.fstat(fd).st_size < self.offset:
            return False
        return self.size == 0 or zlib.crc32(os.pread(fd, self.size, self.start)) == self.crc

    def after(self, line: Line, changed_ns: int) -> Self:
        size = min(len(line.body), 4096)
        crc = line.crc if size == len(line.body) else zlib.crc32(line.body[:size])
        return type(self)(self.inode, self.generation, line.end, line.start, size, crc, changed_ns)


class Candidate(NamedTuple):
    path: str
    status: os.stat_result


class Tail:
    """The open file. `read` and `advance` raise OSError."""

    def __init__(self, path: str, where: str, *, max_line_bytes: int, follow: bool, settle_seconds: float) -> None:
        self._path = path
        self._where = where
        self._max_line_bytes = max_line_bytes
        self._follow = follow
        self._settle_seconds = settle_seconds
        self._fd = -1
        self._lines = Lines(-1, 0, max_line_bytes)
        self._looked_at: tuple[int, int] | None = None
        self._is_copy = False
        self.mark = Mark(0, 0, 0, 0, 0, 0, 0)

    def open(self, position: str | None) -> None:
        """Raises OSError, and ConfigError for anything but a regular file that pipelines may receive from."""
        self._allowed(self._path)
        if position is None:
            self._begin(self._path, 0)
        else:
            self._resume(Mark.parse(position))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, max_lines: int, max_bytes: int, *, ended: bool = False) -> list[tuple[Line, Mark]]:
        """The next lines of this file, each with the position after it."""
        status = os.fstat(self._fd)
        look = (status.st_size, status.st_mtime_ns)
        if look == self._looked_at and not ended:
            return []
        if self._follow and not self._intact(status):
            return []  # `advance` sees to it
        read: list[tuple[Line, Mark]] = []
        for line in self._lines.read(max_lines, max_bytes, ended=ended or not self._follow):
            self.mark = self.mark.after(line, status.st_mtime_ns)
            read.append((line, self.mark))
        # Only when it gave nothing may looking at its size replace reading.
        self._looked_at = None if read else look
        return read

    def advance(self, max_lines: int, max_bytes: int) -> list[tuple[Line, Mark]]:
        """At the end of this file: goes on to the next, if there is one. What is returned is the end of this one."""
        if not self._follow:
            return []
        if not self._intact(os.fstat(self._fd)):
            self._truncated()
            return []
        following = self._next()
        if following is None:
            return []
        rest = self.read(max_lines, max_bytes, ended=True)
        if not rest:
            self._begin(following, self.mark.generation + 1)
        return rest

    def _intact(self, status: os.stat_result) -> bool:
        return status.st_size >= self._lines.searched and self.mark.fits(self._fd)

    def _next(self) -> str | None:
        """The file after this one, once nothing writes to this one any more."""
        status, at_path = os.fstat(self._fd), _status(self._path)
        if at_path is not None and at_path.st_ino == status.st_ino:
            return None
        if not self._is_copy and time.time() - status.st_mtime < self._settle_seconds:
            return None
        between = self._changed_after(status.st_mtime_ns, not_inode=at_path.st_ino if at_path else 0)
        if between:
            return between[0]
        # While the new file is empty, the writer may still have the old one open.
        return self._path if at_path is not None and (self._is_copy or at_path.st_size > 0) else None

    def _changed_after(self, moment_ns: int, not_inode: int = 0) -> list[str]:
        """Files that were rotated away and have not been read, the oldest first."""
        return [
            found.path
            for found in self._beside()
            if found.status.st_mtime_ns > moment_ns
            and found.status.st_ino != not_inode
            and _ROTATED.fullmatch(found.path.removeprefix(self._path))
        ]

    def _truncated(self) -> None:
        copy = self._copy_of(self.mark)
        if copy is not None:
            log.info("%s: it was copied and truncated; reading the rest of the copy %s", self._where, copy)
            self._open_at(copy, self.mark)
            self._is_copy = True
            return
        log.warning("%s: it was truncated, or written over; reading it from its beginning", self._where)
        self._begin(self._path, self.mark.generation + 1)

    def _resume(self, mark: Mark) -> None:
        here = [Candidate(self._path, status)] if (status := _status(self._path)) else []
        for found in here + self._beside():
            if found.status.st_ino == mark.inode and self._try(found.path, mark):
                return
        copy = self._copy_of(mark) if self._follow else None
        if copy is not None:
            self._open_at(copy, mark)
            self._is_copy = True
            return
        log.warning(
            "%s: the file that was read last (inode %d, up to byte %d) is gone or was written over; what it had "
            "beyond that is lost, unless it was read. Keep a rotated file uncompressed until it was read",
            self._where, mark.inode, mark.offset,
        )  # fmt: skip
        unread = self._changed_after(mark.changed_ns) if self._follow else []
        self._begin([*unread, self._path][0], mark.generation + 1)

    def _copy_of(self, mark: Mark) -> str | None:
        """The newest file beside this one that has what was read."""
        if mark.size == 0:
            return None
        for found in reversed(self._beside()):
            if found.status.st_mtime_ns < mark.changed_ns:
                break
            with contextlib.suppress(PermissionError):
                if self._try(found.path, mark):
                    return found.path
        return None

    def _try(self, path: str, mark: Mark) -> bool:
        """Opens the file there if it has what the mark says."""
        try:
            self._open_at(path, mark)
        except FileNotFoundError:
            return False
        return mark.fits(self._fd)

    def _begin(self, path: str, generation: int) -> None:
        self._open_at(path, None)
        status = os.fstat(self._fd)
        self.mark = Mark(status.st_ino, generation, 0, 0, 0, 0, status.st_mtime_ns)

    def _open_at(self, path: str, mark: Mark | None) -> None:
        path = self._allowed(path)
        # O_NONBLOCK: opening a named pipe would wait for its writer without end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        self.close()
        self._fd = fd
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{self._where}: not a regular file; name one (a pipe: relay receive)")
        self._lines = Lines(fd, mark.offset if mark else 0, self._max_line_bytes)
        self._looked_at = None
        self._is_copy = False
        if mark is not None:
            self.mark = mark

    def _allowed(self, path: str) -> str:
        try:
            return check_source_path(path)
        except ConfigError as error:
            raise ConfigError(f"{self._where}: {error}") from None

    def _beside(self) -> list[Candidate]:
        """What rotation has left in the folder, the oldest first; no links that lead out of it."""
        folder, name = os.path.split(self._path)
        found = []
        try:
            entries = os.listdir(folder)
        except FileNotFoundError:
            return []
        for entry in entries:
            rest = entry.removeprefix(name)
            if entry.startswith(name) and rest.startswith(_SEPARATORS) and not entry.endswith(_NOT_READ):
                with contextlib.suppress(ConfigError):
                    path = check_source_path(os.path.join(folder, entry))
                    status = _status(path)
                    if status is not None:
                        found.append(Candidate(os.path.join(folder, entry), status))
        return sorted(found, key=lambda candidate: candidate.status.st_mtime_ns)


def _status(path: str) -> os.stat_result | None:
    """None: it is not there, or not a regular file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
