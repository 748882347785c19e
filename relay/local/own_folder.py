"""Folders and files that are ours alone: what we made, and no one else may read.

A folder that we made has a marker in it. One that we did not make is used only if it is empty, and nothing of others is
changed, neither a file nor the mode of a folder.
"""

import os
import stat
from pathlib import Path

from relay.errors import ConfigError

MARKER = ".made-by-relay-up"


def make(folder: Path, group: int | None = None) -> None:
    """A new folder, for us alone; who is in the group may pass through it, but not list it. Raises FileExistsError."""
    folder.mkdir(mode=0o700, parents=True)
    if group is not None:
        os.chown(folder, -1, group)
        folder.chmod(0o710)


def claim(folder: Path, group: int | None = None) -> None:
    """Makes the folder, or takes one that is empty or was made here. Raises ConfigError for any other."""
    try:
        make(folder, group)
    except FileExistsError:
        _check(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; choose another with --data") from error
    write_new(folder / MARKER, "")


def write_new(path: Path, text: str) -> bool:
    """Writes a file that only we may read. False if there is one of that name, which stays as it is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "w") as file:
        file.write(text)
    return True


def private(path: str, flags: int) -> int:
    """An opener for `open`: a file that it creates is for us alone."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def is_ours(status: os.stat_result) -> bool:
    """Whether no other user may change what is there: for what `os.lstat` says about a folder or a file."""
    return not stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o002


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; choose another with --data")
    if not is_ours(folder.stat()):
        raise ConfigError(f"{folder} belongs to another user, or others may write to it; choose another with --data")
    marker = folder / MARKER
    if not (marker.exists() and is_ours(marker.lstat())) and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty and was not made by relay up; choose another with --data, or a new one"
        )
