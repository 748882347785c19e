"""A lock on a file: only one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.errors import ConfigError
from relay.local.own_folder import private


@contextmanager
def only_one(path: Path, otherwise: str) -> Iterator[None]:
    """Holds the lock; raises ConfigError with the text `otherwise` if another process does. Ends with its process."""
    with open(path, "ab", opener=private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(otherwise) from None
        yield
