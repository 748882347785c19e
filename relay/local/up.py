"""The whole system in one folder, kept running: what `relay up` does."""

import http.client
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relay.database.migrate import migrate
from relay.local import env_file, own_folder
from relay.local.file_lock import only_one
from relay.local.programs import Program, make_api, make_scheduler, make_workers
from relay.local.server_process import free_port, port_is_free
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis, postgres_group
from relay.local.supervisor import Part, Supervised
from relay.process.stop import Stop
from relay.setting_values import parse_address
from relay.settings import Settings

POLL_SECONDS = 0.2
FILES = "files"
"""The folder, in that of the data, of the files that pipelines write and receive from."""
OURS = "relay up"
"""The part that our own lines are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """One run, and who is told about it."""

    data: Path
    postgres_url: str | None
    """None: a PostgreSQL of its own, in the folder."""
    broker_url: str | None
    """None: a Redis of its own, in the folder."""
    job_modules: str | None
    """Modules with handlers of jobs, with commas; None: those of the environment."""
    stop: Stop
    tell: Callable[[str], None]
    """Gets one line for each step."""
    announce: Callable[[Path, Settings], None]
    """Gets the folder and the URLs before the programs start."""
    line: Callable[[str, str], None]
    """Gets each line of each part: the part's name, and the line. Called from several threads."""

    def run(self) -> None:
        """Until `stop` is set. Raises RelayError if something cannot start."""
        with _folder(self.data, with_postgres=not self.postgres_url) as folder, ExitStack() as stack:
            parts: list[Supervised] = []

            def start(name: str, part: Part) -> None:
                stack.callback(part.stop)
                parts.append(Supervised(name, part, partial(self.line, OURS)))
                parts[-1].start()

            urls = {"postgres_url": self._postgres(folder, start), "broker_url": self._broker(folder, start)}
            settings = _settings(folder, job_modules=self.job_modules, **urls)
            for name in migrate(settings.postgres_url).names:
                self.tell(f"applied migration {name}")
            stack.callback(env_file.remove, folder)
            env_file.write(folder, {field: getattr(settings, field) for field in env_file.FIELDS})
            self.announce(folder, settings)
            for name, make in _programs().items():
                lines = partial(self._decoded, name)
                start(name, make(settings, on_output=lines, on_log=lines, inherit=True))
            self._keep_running(parts, settings)
            self.tell("stopping")

    def _postgres(self, folder: Path, start: Callable[[str, Part], None]) -> str:
        if self.postgres_url:
            return self.postgres_url
        self.tell(f"starting PostgreSQL in {folder}")
        postgres = EmbeddedPostgres(folder / "postgres")
        start("PostgreSQL", postgres)
        return postgres.url

    def _broker(self, folder: Path, start: Callable[[str, Part], None]) -> str:
        if self.broker_url:
            return self.broker_url
        redis = EmbeddedRedis(folder / "redis", persistent=True)
        start("Redis", redis)
        return redis.url

    def _decoded(self, part: str, line: bytes) -> None:
        self.line(part, line.decode(errors="replace").rstrip("\n"))

    def _keep_running(self, parts: list[Supervised], settings: Settings) -> None:
        ready = False
        while not self.stop.wait(POLL_SECONDS):
            for part in parts:
                part.check()
            if not ready and _scheduler_is_ready(settings.metrics_addr):
                ready = True
                self.line(OURS, "ready; Ctrl-C stops everything")


def _programs() -> dict[str, Callable[..., Program]]:
    """By name. `relay api` runs if its extra `api` is installed."""
    programs: dict[str, Callable[..., Program]] = {"scheduler": make_scheduler, "workers": make_workers}
    return programs | {"api": make_api} if importlib.util.find_spec("fastapi") else programs


@contextmanager
def _folder(folder: Path, *, with_postgres: bool) -> Iterator[Path]:
    """The folder, locked while we run; git ignores it. Raises ConfigError for one that holds what is not ours."""
    own_folder.claim(folder, postgres_group() if with_postgres else None)
    own_folder.write_new(folder / ".gitignore", "*\n")
    (folder / FILES).mkdir(mode=0o700, exist_ok=True)
    with only_one(folder / "lock", f"another relay up runs in {folder}"):
        yield folder.resolve()


def _settings(folder: Path, **given: str | None) -> Settings:
    """Addresses that were not chosen are on this machine only, and avoid ports that are in use.

    Unless folders were chosen, pipelines may write to files in a folder of the data, and receive from them.
    """
    chosen = Settings.load(**given)
    unset = {"sink_folders", "source_folders"} - chosen.model_fields_set
    addresses: dict[str, object] = dict.fromkeys(unset, (str(folder / FILES),))
    for field in ("metrics_addr", "worker_metrics_addr", "api_addr", "api_metrics_addr", "admin_addr"):
        default = Settings.model_fields[field].default
        if getattr(chosen, field) == default:
            _, port = parse_address(default)
            addresses[field] = f"127.0.0.1:{port if port_is_free(port) else free_port()}"
    return Settings.load(**given, **addresses)


def _scheduler_is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(*parse_address(address), timeout=1)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
