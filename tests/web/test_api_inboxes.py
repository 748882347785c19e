"""`relay api` when the table of one inbox is locked, slow, gone or refuses: the others are not concerned."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web.api import ApiProcess, make_hook, running_api, stored

BAD = [f"bad{number}" for number in range(10)]
SLOW = """
    create or replace function public.slow() returns trigger language plpgsql as
    $$ begin perform pg_sleep({}); return new; end $$
"""


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiProcess]:
    for name in ("good", *BAD):
        make_hook(database, name, timeout_ms=15_000)
    with running_api(database, tmp_path) as running:
        for name in ("good", *BAD):
            running.wait_for(name)
        yield running


@contextmanager
def senders(api: ApiProcess, hooks: list[str]) -> Iterator[list[int]]:
    """Two for each hook, one message after the other; what they are answered."""
    enough, answered = threading.Event(), list[int]()

    def send(hook: str, number: int) -> None:
        while not enough.is_set():
            answered.append(api.send(hook, f"{number}-{time.monotonic_ns()}").status)
            enough.wait(0.02)

    with ThreadPoolExecutor(2 * len(hooks)) as threads:
        for number, hook in enumerate(2 * hooks):
            threads.submit(send, hook, number)
        yield answered
        enough.set()


def good_ones_are_quick(api: ApiProcess) -> None:
    """Twenty, one after the other, while each would wait for seconds behind another inbox."""
    started = time.monotonic()
    assert {api.send("good", f"{started}-{number}").status for number in range(20)} == {200}
    assert time.monotonic() - started < 10


def test_locked_inboxes_hold_up_no_other(api: ApiProcess, database: Database) -> None:
    with database.connect() as owner, owner.transaction(), senders(api, BAD) as answered:
        for name in BAD:
            owner.execute(f"lock table tide.{name} in access exclusive mode")
        wait_until(lambda: answered.count(503) >= 20, 20, "the locks are met")
        good_ones_are_quick(api)
        answer = api.send(BAD[0], "waits")
        assert (answer.status, answer.body["error"], answer.headers["retry-after"]) == (503, "unavailable", "5")
        health = api.get("/health", api.metrics_port)
        assert health.body["status"] == "degraded"
        assert "inbox bad" in str(health.body["reasons"])
    wait_until(lambda: api.send(BAD[0], "after").status == 200, 20)
    assert "after" in stored(database, BAD[0])


def test_slow_triggers_hold_up_no_other(api: ApiProcess, database: Database) -> None:
    with database.connect() as connection:
        connection.execute(SLOW.format(1.5))
        for name in BAD:
            connection.execute(f"create trigger slow before insert on tide.{name} for each row execute function slow()")
        with senders(api, BAD) as answered:
            wait_until(lambda: len(answered) >= 8, 30, "it is known which inboxes are slow")
            good_ones_are_quick(api)
            connection.execute(SLOW.format(0))  # so that the senders end


def test_an_inbox_that_is_gone_or_refuses_costs_the_others_no_session(api: ApiProcess, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("drop table tide.bad0 cascade")
        connection.execute("alter table tide.bad1 add check (event_id like 'only%')")
        assert api.send("good", "first").status == 200
        names = "select array_agg(pid order by pid) from pg_stat_activity where application_name = 'tide-relay api'"
        before = connection.execute(names).fetchall()
        assert {api.send("bad1", str(number)).status for number in range(5)} == {400}
        assert api.send("bad1", "only this").status == 200
        assert connection.execute(names).fetchall() == before
        assert {api.send("bad0", str(number)).status for number in range(5)} == {503}
        good_ones_are_quick(api)
