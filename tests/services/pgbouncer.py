"""PgBouncer for tests, from Debian's packages: unpacked into .cache once, and not installed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from relay.local.server_process import ServerProcess
from relay.local.servers import postgres_group
from tests.paths import ROOT
from tests.services.unavailable import unavailable

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
UNPACKED = ROOT / ".cache" / "pgbouncer"
PROGRAM = UNPACKED / "usr/sbin/pgbouncer"


class PgBouncer(ServerProcess):
    """In front of the server of a URL. `settings` are lines of its section [pgbouncer]."""

    stop_signal = signal.SIGINT
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path, postgres_url: str, settings: Sequence[str], database: str = "") -> None:
        super().__init__(data_dir)
        self._target = conninfo_to_dict(postgres_url)
        self._settings = settings
        self._database = database

    def group(self) -> int | None:
        return postgres_group()

    @property
    def url(self) -> str:
        """The database of the URL, through the pooler."""
        to = self._target
        return f"postgresql://{to['user']}:{to['password']}@127.0.0.1:{self.port}/{to['dbname']}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        if not PROGRAM.exists():
            _unpack()
        to = self._target
        users = self.data_dir / "userlist.txt"
        users.write_text(f'"{to["user"]}" "{to["password"]}"\n')
        configuration = self.data_dir / "pgbouncer.ini"
        lines = ["[databases]", f"{to['dbname']} = host={to['host']} port={to['port']} {self._database}", "[pgbouncer]"]
        lines += [f"listen_port = {self.port}", "listen_addr = 127.0.0.1", "unix_socket_dir =", *self._settings]
        lines += ["auth_type = plain", f"auth_file = {users}"]
        configuration.write_text("\n".join(lines) + "\n")
        libraries = [str(path) for path in UNPACKED.glob("usr/lib/*-linux-gnu")]
        options: dict[str, Any] = {"env": {"LD_LIBRARY_PATH": ":".join(libraries)}}
        if os.geteuid() == 0:  # it refuses to run as root, and so does PostgreSQL, whose user is there
            account = pwd.getpwnam("pgserver")
            options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        return [str(PROGRAM), str(configuration)], options

    def story(self, characters: int = 6000) -> str:
        """What it logged last, and whether it still runs. A client may not see why it was closed:
        what it had sent and was not read has the system drop the last answer."""
        code = self._process.poll() if self._process else None
        state = "runs" if self.pid is not None else f"has ended with {code}"
        return f"PgBouncer {state}; its log:\n{self.log.read_text(errors='replace')[-characters:]}"

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def _unpack() -> None:
    # Beside its place, so that an interrupted download is never taken for a whole one.
    new = UNPACKED.with_name(f"{UNPACKED.name}.{os.getpid()}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    download = f"apt-get download {' '.join(PACKAGES)}"
    update = "apt-get -qq update" if os.geteuid() == 0 else "false"
    script = f"{download} || {{ {update} && {download}; }} && for deb in *.deb; do dpkg -x $deb . && rm $deb; done"
    try:
        done = subprocess.run(["sh", "-c", script], cwd=new, capture_output=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        unavailable(f"PgBouncer cannot be downloaded: {error}")
    if not (new / PROGRAM.relative_to(UNPACKED)).exists():
        unavailable(f"PgBouncer cannot be downloaded: {done.stderr.decode()[-500:]}")
    try:
        new.rename(UNPACKED)
    except OSError:
        shutil.rmtree(new)  # another process was quicker
