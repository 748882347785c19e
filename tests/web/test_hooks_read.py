"""What the API reads of the pipelines when one of them changes."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from relay.process.stop import Stop
from relay.settings import Settings
from relay.web.webhooks import hooks as hooks_module
from relay.web.webhooks.hooks import Hook, Hooks
from tests.services.postgres import Database
from tests.waiting import wait_until

SECRET = "a secret that is long enough"
Set = Callable[..., None]


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders'), tide.inbox_create('commands')")
        connection.execute("select tide.relay_set_outbox('sent', 'orders', '{\"sink_type\": \"memory\"}')")
        connection.execute(
            'select tide.relay_set_inbox(\'file\', \'commands\', \'{"source_type": "file", "path": "/tmp/a"}\')'
        )
        yield connection


@pytest.fixture
def put(db: psycopg.Connection) -> Set:
    def put(name: str, path: str, secret: str = SECRET) -> None:
        config = '{"source_type": "webhook", "scheme": "bearer", "path": "%s", "signing_secret": "%s"}' % (path, secret)  # noqa: UP031
        db.execute("select tide.relay_set_inbox(%s, 'commands', %s::jsonb)", [name, config])

    return put


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The configurations that were read."""
    names: list[str] = []
    right = hooks_module._rows

    def rows(connection, statement, **parameters):
        found = right(connection, statement, **parameters)
        names.extend(row["name"] for row in found if "config" in row)
        return found

    monkeypatch.setattr(hooks_module, "_rows", rows)
    return names


@pytest.fixture
def hooks(put: Set, read: list[str], database: Database) -> Iterator[Hooks]:
    """They have read two pipelines."""
    put("a", "one")
    put("b", "two")
    with Stop() as stop:
        hooks = Hooks(Settings.load(postgres_url=database.url, discovery_interval_seconds="1h"), stop)
        thread = threading.Thread(target=hooks.run)
        thread.start()
        try:
            assert hooks.loaded.wait(20)
            yield hooks
        finally:
            stop.set()
            thread.join(30)


def is_hook(hooks: Hooks, path: str) -> bool:
    return isinstance(hooks.find(path), Hook)


def secrets(hooks: Hooks) -> tuple[str, ...]:
    hook = hooks.find("one")
    assert isinstance(hook, Hook)
    return hook.config.secrets


def test_configurations_are_read_once_and_only_those_of_webhooks(hooks, read, put):
    assert is_hook(hooks, "one") and is_hook(hooks, "two") and not is_hook(hooks, "file")
    put("b", "three")
    wait_until(lambda: is_hook(hooks, "three"), 20, "the change is read")
    assert read == ["a", "b", "b"]
    assert is_hook(hooks, "one") and hooks.find("two") is None


def test_what_was_deleted_disabled_or_made_again_is_known(hooks, read, put, db):
    db.execute("select tide.relay_delete('a')")
    wait_until(lambda: hooks.find("one") is None, 20, "it is gone")
    db.execute("select tide.relay_disable('b')")
    wait_until(lambda: not is_hook(hooks, "two"), 20, "it is disabled")
    assert hooks.find("two") is not None
    put("a", "one")
    wait_until(lambda: is_hook(hooks, "one"), 20, "it is there again")


def test_a_secret_in_a_file_is_read_again_though_the_configuration_has_not_changed(hooks, read, put, db, tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET)
    put("a", "one", f"${{file:{file}}}")
    wait_until(lambda: read.count("a") == 2 and is_hook(hooks, "one"), 20, "the change is read")
    wait_until(lambda: secrets(hooks) == (SECRET,), 20, "with its secret")
    file.write_text("another secret, as long as that")
    db.execute("select pg_notify('tide_relay_config', 'a')")
    wait_until(lambda: secrets(hooks) == ("another secret, as long as that",), 20, "the new secret")
    assert read.count("a") == 2
