"""That a process of workers or of `relay api` is alive, as a row tells: `relay doctor` and `relay status` read it."""

import os
import socket
from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

import structlog

import relay
from relay.database.connection import Connection, database_errors
from relay.errors import RelayError
from relay.sql import query

log = structlog.get_logger(__name__)

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A process that was silent for so long is taken for dead: drains may hold all sessions of a worker for a while."""


class Presence:
    """The row of this process. Made after the process was forked."""

    def __init__(self, kind: Literal["workers", "api"]) -> None:
        self._row = {
            "process_id": uuid4(),
            "kind": kind,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": relay.__version__,
        }
        self._told = False

    def tell(self, error: RelayError | None) -> None:
        """Logs that no sign of life can be given, once until one is. Nothing else of the process depends on it."""
        if error is not None and not self._told:
            log.warning("no sign of life can be given", reason=str(error))
        self._told = error is not None

    def beat(self, connection: Connection, queues: Sequence[str] = (), lacking: Sequence[str] = ()) -> None:
        """A sign of life. `lacking` are those of its queues that it is not connected to. Raises RelayError."""
        with database_errors():
            connection.execute(query("process_beat"), {**self._row, "queues": list(queues), "lacking": list(lacking)})

    def leave(self, connection: Connection) -> None:
        """It ends. What is killed leaves its row, which grows old. Raises RelayError."""
        with database_errors():
            connection.execute(query("process_stop"), self._row)
