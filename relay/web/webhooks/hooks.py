"""Which pipelines receive webhooks, as configured now.

A thread with a session of its own reads them, and again when it is notified of a change; in case a notification was
lost, also every so often. While PostgreSQL is away, what was read last holds.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from psycopg.rows import dict_row

from relay.backends.webhook.config import WebhookSourceConfig
from relay.backends.webhook.signatures import Verifier, signature_headers
from relay.backends.webhook.source import WebhookSource
from relay.database import migrate
from relay.database.connection import Connection, connect, database_errors
from relay.database.notifications import Listener
from relay.errors import ConfigError, MigrationError, NotConnected, RelayError
from relay.known_secrets import remember
from relay.pipelines.config import ReverseConfig, parse_reverse, read_config
from relay.pipelines.secret_refs import resolve
from relay.process.presence import BEAT_SECONDS, Presence
from relay.process.stop import Stop
from relay.process.unforeseen import log_bug
from relay.settings import Settings
from relay.sql import query
from relay.web.webhooks.limits import RateLimit
from relay.wire.decode import Decoder

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 1.0
# Anyone can say that a configuration has changed: the first time it is read at once.
PACE_SECONDS = 0.25

_PRIVATE = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_FRAMING = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "trailer",
                      "upgrade", "expect", "proxy-connection", "accept-encoding"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hook:
    """One pipeline that can receive."""

    pipeline: str
    inbox: str
    config: WebhookSourceConfig
    verifier: Verifier
    decoder: Decoder
    wire_format: str
    dropped: frozenset[str]
    """Headers, in lower case, that are not kept."""
    rate: RateLimit | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """One that is there and cannot receive now."""

    pipeline: str
    reason: str


Found = Hook | Unavailable | None


class Hooks:
    """`find` from any thread; `run` in a thread of its own, until `stop` is set."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._hooks: dict[str, Hook | Unavailable] = {}
        self._configs: dict[str, _Config] = {}
        self._made: dict[tuple[str, int], _Made] = {}
        self._presence = Presence("api")
        self._beats_at = 0.0
        self.trouble: str | None = "the pipelines have not been read yet"
        """Why what is known may be old; for people."""
        self.loaded = threading.Event()
        """They have been read at least once."""

    def find(self, path: str) -> Found:
        return self._hooks.get(path)

    def __len__(self) -> int:
        return sum(isinstance(hook, Hook) for hook in self._hooks.values())

    def check(self) -> None:
        """Raises ConfigError or MigrationError if it makes no sense to start at all."""
        try:
            with connect(self._settings, "tide-relay api") as connection:
                migrate.require_current(connection)
        except NotConnected as error:
            log.warning("PostgreSQL cannot be reached yet", reason=str(error))

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._settings, "tide-relay api configuration") as connection:
                    migrate.require_current(connection)
                    self._follow(connection)
            except (NotConnected, ConfigError, MigrationError) as error:
                if self.trouble is None:
                    log.error("pipelines cannot be read", reason=str(error))
                self.trouble = str(error)
                self._stop.wait(RECONNECT_SECONDS)

    def _follow(self, connection: Connection) -> None:
        changed = threading.Event()
        listener = Listener(connection, lambda _, name: None if name is None else changed.set())
        self._configs = {}  # revisions are compared within one session only: the database may have been restored
        with database_errors():
            connection.execute(query("api_listen"))
            while not self._stop.is_set():
                changed.clear()
                migrate.require_current(connection)
                self._read(connection)
                self.trouble = None
                self.loaded.set()
                self._wait(connection, listener, changed)
            self._presence.leave(connection)

    def _wait(self, connection: Connection, listener: Listener, changed: threading.Event) -> None:
        """Until a configuration is said to have changed, or it is time to look anyway."""
        now = time.monotonic()
        soonest, latest = now + PACE_SECONDS, now + self._settings.discovery_interval_seconds
        while not self._stop.is_set() and (left := (soonest if changed.is_set() else latest) - time.monotonic()) > 0:
            self._beat(connection)
            listener.wait(min(left, 1.0), self._stop)

    def _beat(self, connection: Connection) -> None:
        if time.monotonic() >= self._beats_at:
            self._beats_at = time.monotonic() + BEAT_SECONDS
            try:
                self._presence.beat(connection)
                self._presence.tell(None)
            except RelayError as error:  # such as a right that is missing; a lost session shows at the next read
                self._presence.tell(error)

    def _read(self, connection: Connection) -> None:
        """Reads the configurations that have changed; secrets are resolved each time, since a file may have changed."""
        rows = _rows(connection, "hooks")
        self._configs = {row["name"]: self._configs[row["name"]] for row in rows if row["name"] in self._configs}
        known = {name: config.revision for name, config in self._configs.items()}
        changed = [row["name"] for row in rows if known.get(row["name"]) != row["revision"]]
        for row in _rows(connection, "hook_configurations", names=changed) if changed else ():
            self._configs[row["name"]] = _Config(row["revision"], _read_config(row["config"]))
        made: dict[tuple[str, int], _Made] = {}
        hooks: dict[str, Hook | Unavailable] = {}
        for row in rows:
            config = self._configs.get(row["name"])
            if config is None or config.values is None:
                continue  # gone since the statement before; or a scheduler reports that it cannot be read
            row["config"] = config.values
            key = (row["name"], config.revision)
            made[key] = _make(row, self._made.get(key))
            hook = made[key].hook
            path = hook.config.path or hook.pipeline if isinstance(hook, Hook) else _path_of(row)
            if not row["enabled"]:
                hook = Unavailable(row["name"], "disabled")
            if path in hooks:
                log.error("path is taken", pipeline=row["name"], path=path, by=hooks[path].pipeline)
                continue
            hooks[path] = hook
        self._hooks, self._made = hooks, made


class _Config(NamedTuple):
    """A revision of a pipeline that was read before."""

    revision: int
    values: dict[str, Any] | None
    """None: they cannot be read."""


def _rows(connection: Connection, statement: str, **parameters: object) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(statement), parameters).fetchall()


def _read_config(text: str) -> dict[str, Any] | None:
    try:
        return read_config(text)
    except ConfigError:
        return None


def _path_of(row: dict[str, Any]) -> str:
    path = row["config"].get("path")
    return path.removeprefix("/").removeprefix("hooks/") if isinstance(path, str) else str(row["name"])


@dataclass(frozen=True, slots=True)
class _Made:
    """What was made of a revision, and of the secrets that it refers to: a file may have another one later."""

    resolved: dict[str, Any] | str
    """The configuration; why it has none, if a reference leads nowhere."""
    hook: Hook | Unavailable


def _make(row: dict[str, Any], before: _Made | None) -> _Made:
    """What the row says, or that it is wrong."""
    name = row["name"]
    resolved: dict[str, Any] | str
    try:
        resolved = resolve(row["config"])
    except ConfigError as error:
        resolved = str(error)
    except RecursionError:
        resolved = "the configuration is nested too deeply"
    if before is not None and before.resolved == resolved:
        return before
    try:
        if isinstance(resolved, str):
            raise ConfigError(resolved)
        hook: Hook | Unavailable = _hook(row, parse_reverse(resolved))
    except ConfigError as error:
        log.error("pipeline is invalid", pipeline=name, reason=str(error))
        hook = Unavailable(name, "invalid")
    except Exception as error:  # noqa: BLE001  a bug that one configuration meets must not stop the hooks of others
        log_bug("bug in reading a configuration", error, pipeline=name)
        hook = Unavailable(name, "invalid")
    return _Made(resolved, hook)


def _hook(row: dict[str, Any], parsed: ReverseConfig) -> Hook:
    config = parsed.source
    assert isinstance(config, WebhookSourceConfig)
    for secret in config.secrets:
        remember(secret)
    keys = parsed.pipeline
    if "max_message_bytes" not in keys.model_fields_set:
        keys = keys.model_copy(update={"max_message_bytes": config.max_body_bytes})
    name = row["name"]
    own = signature_headers(config.scheme, config.signature_header)
    wire_format = keys.wire_format or WebhookSource.features.default_wire_format
    return Hook(
        pipeline=name,
        inbox=row["inbox"],
        config=config,
        verifier=Verifier(config.scheme, config.secrets, config.tolerance_seconds, config.signature_header.lower()),
        decoder=keys.decoder(name, wire_format),
        wire_format=wire_format,
        dropped=_PRIVATE | _FRAMING | own,
        rate=RateLimit(config.rate_limit) if config.rate_limit else None,
    )
