"""What an error of the operating system means about a file, a folder or a pipe."""

import errno

from relay.backends.common.error_table import ErrorTable
from relay.errors import RelayError

OS_ERRORS = ErrorTable(
    answers={
        # From open(2), write(2), fsync(2), ftruncate(2), flock(2), stat(2).
        errno.EACCES: "no_permission",
        errno.EPERM: "no_permission",
        errno.EROFS: "no_permission",
        errno.ENOENT: "no_folder",
        errno.ENOTDIR: "no_folder",
        errno.EISDIR: "not_a_file",
        errno.ENXIO: "not_a_file",
        errno.ENODEV: "not_a_file",
        errno.ETXTBSY: "not_a_file",
        errno.ESPIPE: "not_a_file",
        errno.ELOOP: "bad_path",
        errno.ENAMETOOLONG: "bad_path",
        errno.EINVAL: "bad_path",
        errno.ENOLCK: "no_locks",
        errno.EOPNOTSUPP: "no_locks",
        errno.EBADF: "closed",
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EFBIG: "file_too_large",
        errno.EMFILE: "too_many_files",
        errno.ENFILE: "too_many_files",
        errno.ENOMEM: "no_memory",
        errno.EPIPE: "broken_pipe",
        errno.EAGAIN: "timeout",
        errno.EIO: "io",
    },
    needs_operator={"no_permission", "no_folder", "not_a_file", "bad_path", "no_locks", "closed"},
    unknown="io",
    answers_of=lambda error: (error.errno,),
    text_of=lambda error: str(error.strerror or error),
)

_HINTS = {
    "no_permission": "let the user that runs the workers write there",
    "no_folder": "create its folder",
    "not_a_file": "name a regular file",
    "no_locks": "use a file system with locks (flock)",
    "closed": "the worker was started without it: give it one, or use another sink",
    "disk_full": "free space; the batch is then retried",
    "broken_pipe": "its reader has gone",
}


def translate(error: OSError, where: str, *, opening: bool) -> RelayError:
    """Our error for the system's, about `where` (the pipeline and the destination), with what to do about it.

    A ConfigError is for `open` alone: `publish` always says NotConnected, after which `open` decides.
    """
    hint = _HINTS.get(OS_ERRORS.verdict(error).code)
    reason = f"{error.strerror or error}; {hint}" if hint else None
    return OS_ERRORS.translated(error, where, opening=opening, reason=reason)
