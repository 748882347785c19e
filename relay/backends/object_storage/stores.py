"""Where objects are kept: the seam, and a local folder. S3 is in `s3.py`.

In a folder an object is there whole or not at all: it is written under `.incoming`, synced, renamed to its place, and
the folder synced. A crash leaves a file in `.incoming`; the next `open` of the folder removes those that no process
has locked any more.
"""

import fcntl
import os
import re
import secrets
import stat
from abc import ABC, abstractmethod
from contextlib import suppress

from relay.backends.common.os_errors import translate
from relay.backends.object_storage.encode import Spool
from relay.errors import ConfigError, NotConnected
from relay.reach import check_sink_path

INCOMING = ".incoming"
"""Begins with a dot, so that what reads all objects of the folder passes it over."""

_PERMISSIONS = 0o640
_SPOOL = re.compile(r"[0-9a-f]{16}")
"""The names that we give in that folder. Nothing else in it is ours to remove."""


class Store(ABC):
    """One place for objects. One thread at a time. Each but `close` raises NotConnected, `open` ConfigError too."""

    def __init__(self, where: str, disk: str) -> None:
        self.where = where
        """How errors name it: the pipeline, and the place."""
        self.disk = disk
        """How errors name the disk of the spools."""

    @abstractmethod
    def open(self) -> None:
        """Connects, and checks that the place exists, or makes it when configured so."""

    @abstractmethod
    def spool(self) -> Spool:
        """An empty one, on disk. Raises OSError."""

    @abstractmethod
    def put(self, spool: Spool, name: str) -> None:
        """Stores the spool under the name, in place of what was there; durable on return. Raises OSError too."""

    @abstractmethod
    def close(self) -> None:
        """Releases everything. May be called twice."""


class FolderStore(Store):
    def __init__(self, path: str, where: str, *, create: bool) -> None:
        super().__init__(where, where)
        self._path = path
        self._create = create

    def open(self) -> None:
        try:
            self._path = check_sink_path(self._path)
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        incoming = os.path.join(self._path, INCOMING)
        try:
            if self._create:
                _make_folders(self._path)
            if not stat.S_ISDIR(os.stat(self._path).st_mode):
                raise ConfigError(f"{self.where}: not a folder; name a folder")
            os.makedirs(incoming, exist_ok=True)
            _remove_leftovers(incoming)
            # Says now whether we may write there.
            self.spool().close()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.where}: there is no such folder: make it, or set create to true to have it made"
            ) from error
        except OSError as error:
            raise translate(error, self.where, opening=True) from error

    def spool(self) -> Spool:
        path = os.path.join(self._path, INCOMING, secrets.token_hex(8))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PERMISSIONS)
        spool = Spool(os.fdopen(descriptor, "w+b"), path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            spool.close()
            raise
        return spool

    def put(self, spool: Spool, name: str) -> None:
        assert spool.path is not None
        target = os.path.join(self._path, name)
        folder = os.path.dirname(target)
        self._check_links(folder)
        # If a volume is no longer mounted, nothing may be written to the folder below it.
        _make_folders(folder, self._path)
        spool.file.flush()
        os.fsync(spool.file.fileno())
        os.rename(spool.path, target)
        _sync(folder)

    def _check_links(self, folder: str) -> None:
        """A link between the folder and the object must not lead out of what pipelines may write to."""
        try:
            check_sink_path(folder)
        except ConfigError as error:
            raise NotConnected(f"{self.where}: {error}", code="bad_path") from None

    def close(self) -> None:
        """It holds nothing between calls."""


def _make_folders(path: str, below: str = "/") -> None:
    """The folder and those above it, each with a name that survives a power failure; not `below`, which must exist."""
    if path != below and not os.path.isdir(path):
        above = os.path.dirname(path)
        _make_folders(above, below)
        # Another worker may be making it too.
        with suppress(FileExistsError):
            os.mkdir(path)
        _sync(above)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: str) -> None:
    for name in filter(_SPOOL.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue  # its writer has just put it in its place
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Still of that name: between opening and locking it may have become an object.
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                os.unlink(path)
        except (BlockingIOError, FileNotFoundError):
            continue
        finally:
            os.close(descriptor)
