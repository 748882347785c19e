"""Which end of a file is ours to remove: a note on the file of the write in progress.

A crash in the middle of a write leaves a partial line. The same file may also end in a partial line of another program,
and that is not ours to cut. So for as long as a write lasts, an extended attribute of the file says where it began, how
long it was to be, and how its content began. Only a partial line inside such a write is removed. A file system without
extended attributes keeps it, and the next batch begins on a new line.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAME = "user.tide-relay"
_HEAD_BYTES = 16
_BLOCK_BYTES = 64 * 1024
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSPC, errno.EPERM, errno.E2BIG}


@contextmanager
def unfinished(fd: int, start: int, data: bytes) -> Iterator[None]:
    """Around the write of `data` at the end of the file, which is `start`. A write that fails is undone."""
    _note(fd, b"%d %d " % (start, len(data)) + data[:_HEAD_BYTES])
    try:
        yield
    except OSError:
        # What cannot be undone is at worst a partial line, and the note stays for the next writer.
        with suppress(OSError):
            if _is_at_end(fd, start, data):
                os.ftruncate(fd, start)
            _note(fd, b"")
        raise
    _note(fd, b"")


def end_of_others(fd: int) -> tuple[int, bool]:
    """Where the file ends without a partial line of ours; and whether that is the end of a line."""
    size = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return size, True
    noted = _noted(fd)
    if noted is None:
        return size, False
    start, length, head = noted
    line = _last_line(fd, size)
    # Some bytes were never written: only then the last line can be partial.
    is_ours = start <= line and size < start + length and os.pread(fd, len(head), start) == head[: size - start]
    return (line, True) if is_ours else (size, False)


def _is_at_end(fd: int, start: int, data: bytes) -> bool:
    """Whether what is there from `start` on is the beginning of our data, and nothing else."""
    written = os.fstat(fd).st_size - start
    if not 0 < written <= len(data):
        return False
    return all(
        os.pread(fd, _BLOCK_BYTES, start + at)[: written - at] == data[at : min(at + _BLOCK_BYTES, written)]
        for at in range(0, written, _BLOCK_BYTES)
    )


def _last_line(fd: int, size: int) -> int:
    """Where it begins. Reads back in blocks."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _note(fd: int, text: bytes) -> None:
    if not hasattr(os, "setxattr"):
        return
    try:
        os.setxattr(fd, _NAME, text)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _noted(fd: int) -> tuple[int, int, bytes] | None:
    """Start, length and first bytes of a write that did not end."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        start, length, head = os.getxattr(fd, _NAME).split(b" ", 2)
        return int(start), int(length), head
    except (OSError, ValueError):
        return None
