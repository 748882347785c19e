"""relay.inbox: how it waits for messages, and what it does when its connection is lost, or wrong."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from relay import inbox
from relay.errors import ConfigError, NotConnected
from relay.inbox import consumer
from tests.inbox.effects import effects, leave_effect
from tests.sql.inbox.inboxes import call, claim, fill, names
from tests.waiting import wait_until


def test_new_messages_are_heard_of_and_a_stop_gives_back_the_rest(db, database):
    stop = threading.Event()
    begun = []

    def handle(connection, message):
        begun.append(message.event_id)
        if message.event_id == "last":
            stop.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(inbox.run, database.url, "commands", handle, stop=stop, poll_seconds=3600)
        listening = "count(*) from pg_stat_activity where application_name = 'tide-relay inbox' and state = 'idle'"
        try:
            wait_until(lambda: call(db, listening) == 1)
            fill(db, "first")
            wait_until(lambda: begun == ["first"])
            wait_until(lambda: names(db, "commands_pending") == [])
            db.execute("insert into tide.commands (event_id) values ('last'), ('x'), ('y')")
            assert running.result(20) == 2
        finally:
            stop.set()
    assert begun == ["first", "last"]
    assert claim(db) == ["x", "y"]


def test_a_lost_connection_is_made_anew_when_it_is_ours(db, database):
    fill(db, "a", "b", "c")

    def handle(connection, message):
        leave_effect(connection, message)
        if message.event_id == "b" and not message.retry_count and "b" not in killed:
            killed.append("b")
            with database.admin() as admin:
                admin.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            connection.execute("select 1")

    killed = []
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            inbox.run, database.url, "commands", handle, stop=stop, visibility_seconds=1, poll_seconds=0.1
        )
        try:
            wait_until(lambda: sorted(effects(db)) == ["a", "b", "c"])
        finally:
            stop.set()
        assert running.result(20) == 3
    assert call(db, "max(retry_count) from tide.commands") == 0
    fill(db, "d")
    with database.connect() as given:

        def hang_up(connection, message):
            connection.close()

        with pytest.raises(NotConnected, match="message d"):
            inbox.run(given, "commands", hang_up)


def test_an_idle_worker_is_back_soon_however_often_its_connection_was_lost(db, database, caplog):
    session = "from pg_stat_activity where application_name = 'tide-relay inbox' and query ~ 'claim' and state = 'idle'"
    stop = threading.Event()

    def pauses():
        return [float(text) for text in re.findall(r"retrying in ([0-9.]+) s", caplog.text)]

    def has_paused(times):
        return len(pauses()) == times

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(inbox.run, database.url, "commands", leave_effect, stop=stop, poll_seconds=0.05)
        try:
            for lost in range(1, 5):
                wait_until(lambda: call(db, f"count(*) {session}") == 1)
                db.execute(f"select pg_terminate_backend(pid, 5000) {session}")
                wait_until(partial(has_paused, lost))
        finally:
            stop.set()
        assert running.result(20) == 0
    assert max(pauses()) <= 0.2


def test_what_is_wrong_for_good_is_said(db, database):
    with pytest.raises(ConfigError, match='inbox "missing" does not exist'):
        inbox.run(database.url, "missing", leave_effect)
    with database.connect(autocommit=False) as connection, pytest.raises(ConfigError, match="autocommit"):
        inbox.run(connection, "commands", leave_effect)


NOWHERE = "postgresql://u@127.0.0.1:1/none"


@pytest.mark.timeout(60)
def test_until_it_is_empty_means_no_wait_for_a_server_that_is_not_there(db, database, proxy, monkeypatch):
    with pytest.raises(NotConnected):
        inbox.run(NOWHERE, "commands", leave_effect, until_empty=True)

    async def handle(connection, message):
        raise AssertionError

    with pytest.raises(NotConnected):
        asyncio.run(inbox.run_async(NOWHERE, "commands", handle, until_empty=True))
    monkeypatch.setattr(consumer, "_MAX_PAUSE_SECONDS", 0.01)
    fill(db, "a", "b", "c")
    between = proxy(database.url)

    def interrupted(connection, message):
        leave_effect(connection, message)
        if message.event_id == "b":
            between.refuse()

    with pytest.raises(NotConnected):
        inbox.run(between.through(database.url), "commands", interrupted, until_empty=True)
    assert effects(db) == ["a"]


def test_until_it_is_empty_a_lost_connection_is_replaced(db, database, proxy):
    fill(db, "a", "b")
    between = proxy(database.url)
    cut = threading.Event()

    def interrupted(connection, message):
        if not cut.is_set():
            cut.set()
            between.cut()
        leave_effect(connection, message)

    url = between.through(database.url)
    assert inbox.run(url, "commands", interrupted, until_empty=True, visibility_seconds=60) == 0
    assert cut.is_set(), "its lease has not run out: nothing can be claimed"
