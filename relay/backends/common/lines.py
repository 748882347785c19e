"""What the file and the standard output sink share: records as lines, whole writes, the table of system errors."""

import errno
import os
from collections.abc import Sequence

from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Record

OS_ERRORS: dict[int, tuple[bool, str]] = {
    # errno: (a person must change something, code). From open(2), write(2), fsync(2), ftruncate(2), flock(2), stat(2).
    errno.EACCES: (True, "no_permission"),
    errno.EPERM: (True, "no_permission"),
    errno.EROFS: (True, "no_permission"),
    errno.ENOENT: (True, "no_folder"),
    errno.ENOTDIR: (True, "no_folder"),
    errno.EISDIR: (True, "not_a_file"),
    errno.ENXIO: (True, "not_a_file"),
    errno.ENODEV: (True, "not_a_file"),
    errno.ETXTBSY: (True, "not_a_file"),
    errno.ESPIPE: (True, "not_a_file"),
    errno.ELOOP: (True, "bad_path"),
    errno.ENAMETOOLONG: (True, "bad_path"),
    errno.EINVAL: (True, "bad_path"),
    errno.ENOLCK: (True, "no_locks"),
    errno.EOPNOTSUPP: (True, "no_locks"),
    errno.EBADF: (True, "closed"),
    errno.ENOSPC: (False, "disk_full"),
    errno.EDQUOT: (False, "disk_full"),
    errno.EFBIG: (False, "file_too_large"),
    errno.EMFILE: (False, "too_many_files"),
    errno.ENFILE: (False, "too_many_files"),
    errno.ENOMEM: (False, "no_memory"),
    errno.EPIPE: (False, "broken_pipe"),
    errno.EAGAIN: (False, "timeout"),
    errno.EIO: (False, "io"),
}

_HINTS = {
    "no_permission": "let the user that runs the workers write there",
    "no_folder": "create its folder",
    "not_a_file": "name a regular file",
    "no_locks": "use a file system with locks (flock)",
    "closed": "the worker was started without it: give it one, or use another sink",
    "disk_full": "free space; the batch is sent again",
    "broken_pipe": "whoever read it has gone",
}


def translate(error: OSError, where: str, *, opening: bool) -> RelayError:
    """Our error for the system's, about `where` (the pipeline and the destination).

    A ConfigError is for `open` alone: `publish` always says NotConnected, after which `open` gives the verdict.
    """
    for_a_person, code = OS_ERRORS.get(error.errno or 0, (False, "io"))
    hint = f"; {_HINTS[code]}" if code in _HINTS else ""
    text = f"{where}: {error.strerror or error}{hint}"
    return ConfigError(text) if opening and for_a_person else NotConnected(text, code=code)


def as_lines(records: Sequence[Record]) -> bytes:
    """One line for each body, each with its newline.

    PostgreSQL prints JSON without raw newlines, and in JSON a newline stands only where a space may stand too:
    should one occur, replacing it keeps both the value and the rule of one record a line.
    """
    bodies = [record.body for record in records]
    data = b"\n".join(bodies) + b"\n"
    if data.count(b"\n") != len(bodies):
        data = b"\n".join([body.replace(b"\n", b" ") for body in bodies]) + b"\n"
    return data


def write_whole(fd: int, data: bytes) -> None:
    """Write everything, however little the system takes at a time. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
