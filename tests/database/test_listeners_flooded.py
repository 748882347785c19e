"""What listens besides the scheduler: a bell that anyone rings costs few looks, and a true one is still answered."""

import threading
import time
from contextlib import contextmanager

import pytest

from relay import inbox
from relay.backends.postgresql.reader import OutboxReader, join_group
from relay.backends.postgresql.session import connect
from relay.inbox.consumer import Work
from relay.process.stop import Stop
from relay.settings import Settings
from relay.web.webhooks.hooks import Hooks
from tests.sql.inbox.inboxes import call, fill
from tests.sql.support import make_pipeline, publish
from tests.waiting import wait_until

FORGED = 600


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def looks(monkeypatch):
    """Counts the calls of a method: when each was."""

    def counted(kind, name):
        calls, own = [], getattr(kind, name)

        def noted(*args, **options):
            calls.append(time.monotonic())
            return own(*args, **options)

        monkeypatch.setattr(kind, name, noted)
        return calls

    return counted


@contextmanager
def running(function, stop):
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def forge(db, channel, name):
    """Many notifications, one after the other, among them what is no name; how long it took."""
    began_at = time.monotonic()
    for _ in range(FORGED):
        db.execute("select pg_notify(%s, %s), pg_notify(%s, repeat('[', 7000))", [channel, name, channel])
    return time.monotonic() - began_at


def test_an_inbox_is_not_asked_for_messages_as_often_as_anyone_rings(db, database, looks):
    call(db, "tide.inbox_create('commands')")
    claims, handled, stop = looks(Work, "_claim"), [], threading.Event()

    def work():
        inbox.run(database.url, "commands", lambda _, message: handled.append(message.event_id), stop=stop)

    with running(work, stop):
        wait_until(lambda: claims, 10)
        seconds = forge(db, "tide_inbox", "commands")
        assert len(claims) < 10 + seconds * 120 < FORGED
        fill(db, "a")
        wait_until(lambda: handled == ["a"], 10)


def test_the_connection_that_a_handler_was_given_is_as_before(db, database):
    call(db, "tide.inbox_create('commands')")
    with database.connect() as own:
        handler = own.pgconn.notify_handler
        inbox.run(own, "commands", lambda *_: None, until_empty=True)
        assert own.pgconn.notify_handler is handler and "wait" not in vars(own)


def test_an_outbox_of_another_database_is_not_read_as_often_as_anyone_rings(db, database):
    make_pipeline(database, "p", "others")
    db.execute("select tide.outbox_create('orders')")
    session = connect(database.url, "here", 5000, "test")
    session.execute("listen tide_outbox_notify")
    reader = OutboxReader(session, "orders", join_group(session, "orders", "g", "here"))
    peeks, began_at = 0, time.monotonic()
    forger = threading.Thread(target=forge, args=(db, "tide_outbox_notify", "orders"))
    forger.start()
    while forger.is_alive():
        assert not reader.peek(0, 10).messages
        reader.wait(0.1)
        peeks += 1
    assert peeks < 10 + (time.monotonic() - began_at) * 120
    with database.connect() as publisher:
        publish(publisher, "orders")
    assert reader.peek(0, 10).messages
    reader.close()


def test_the_api_does_not_read_its_pipelines_as_often_as_anyone_says_that_they_changed(db, database, looks):
    reads = looks(Hooks, "_read")
    settings = Settings.load(postgres_url=database.url, discovery_interval_seconds="1h")
    with Stop() as stop:
        hooks = Hooks(settings, stop)
        with running(hooks.run, stop):
            assert hooks.loaded.wait(20)
            seconds = forge(db, "tide_relay_config", "orders")
            assert len(reads) < 5 + seconds * 5 < FORGED
            before = len(reads)
            wait_until(lambda: time.monotonic() - reads[-1] > 0.3, 10, "it rests")
            db.execute("select tide.inbox_create('commands')")
            for name, value in (
                ("digits", "9" * 5000),
                ("deep", "[" * 1500 + "]" * 1500),
                ("less", "[" * 450 + "]" * 450),
            ):
                config = f'{{"source_type": "webhook", "secrets": {value}}}'
                db.execute("select tide.relay_set_inbox(%s, 'commands', %s::jsonb)", [name, config])
            db.execute("""select tide.relay_set_inbox('hook', 'commands', '{"source_type": "webhook"}')""")
            wait_until(lambda: hooks.find("hook"), 10, "a change is still read")
            assert before < len(reads) and hooks.trouble is None
