"""RabbitMQ for tests: the programs of Debian's package, run as an ordinary server of our own."""

import os
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.local.server_process import ServerProcess, free_port
from tests.services.unavailable import unavailable

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitmqServer(ServerProcess):
    """With a user and a password; its node name, ports and folders are its own. Durable queues outlive `restart`."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._names = Epmd(self.data_dir / "epmd")

    @property
    def url(self) -> str:
        return f"amqp://tide:{self.password}@127.0.0.1:{self.port}/%2F"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        if not PROGRAM.exists():
            unavailable("RabbitMQ is not installed (make services-rabbitmq, as root on Debian)")
        self._names.start()
        settings = self.data_dir / "rabbitmq.conf"
        settings.write_text(f"default_user = tide\ndefault_pass = {self.password}\ndisk_free_limit.absolute = 50MB\n")
        plugins = self.data_dir / "enabled_plugins"
        plugins.write_text("[].\n")
        return [str(PROGRAM)], {"env": self._environment(settings, plugins), "cwd": self.data_dir}

    def _environment(self, settings: Path, plugins: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.data_dir),  # where the cookie is
            "ERL_EPMD_PORT": str(self._names.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tide-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.data_dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data_dir),
            "RABBITMQ_LOGS": "-",  # to standard output, which is our log
            "RABBITMQ_PID_FILE": str(self.data_dir / "pid"),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_CONF_ENV_FILE": str(self.data_dir / "none.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.data_dir / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            # Together: the shell script becomes the server, so that signals reach it and not a shell.
            "RABBITMQ_ALLOW_INPUT": "yes",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput",
        }

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def stop(self) -> None:
        super().stop()
        self._names.stop()

    def kill(self) -> None:
        super().kill()
        self._names.kill()


class Epmd(ServerProcess):
    """Erlang's directory of nodes. Erlang would start one by itself, for the whole machine, and leave it behind."""

    stop_signal = kill_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"epmd://127.0.0.1:{self.port}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        program = shutil.which("epmd")
        if program is None:
            unavailable("epmd, a part of Erlang, is not installed")
        return [program, "-port", str(self.port), "-address", "127.0.0.1"], {}

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
