"""The README's first pipelines, used with `relay up` as they are printed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.backends.nats.source_harness import NatsSourceHarness
from tests.backends.source_harness import Sent
from tests.cli.test_up import Up
from tests.docs.pages import blocks, substituted
from tests.services.nats import NatsServer
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)
NATS = "nats://localhost:4222"


@pytest.fixture
def running(own_dirs: Callable[[], Path]) -> Iterator[Up]:
    up = Up(own_dirs())
    try:
        yield up.wait_until_ready()
    finally:
        up.stop()


def test_the_readme_works_as_printed(running: Up, own_nats: Callable[[], NatsServer]) -> None:
    nats = own_nats()
    harness = NatsSourceHarness(nats, name="orders")
    with psycopg.connect(running.url, autocommit=True) as db:

        def rows(inbox: str) -> list[object]:
            found = db.execute(f"select payload from tide.{inbox} order by inbox_seq").fetchall()
            return [payload for (payload,) in found]

        forward, reverse, without_relay, stream_table = blocks("README")
        db.execute("create table orders (id int, total numeric)")  # the application's own
        db.execute(substituted(forward, {NATS: nats.url}))
        wait_until(lambda: running.status["orders-to-nats"]["delivered"] == 1, 60, "the message is delivered")
        [seen] = harness.nats.read_all()
        assert json.loads(seen.body) == {"order": 42, "total": 99.5}

        commands = NatsSourceHarness(nats, name="commands")
        commands.nats.make_stream(subjects=["commands.>"])
        commands.send([Sent(b'{"n": 1}')])
        db.execute(substituted(reverse, {NATS: nats.url}))
        wait_until(lambda: rows("commands") == [{"n": 1}], 60, "the command is a row")

        results = [cursor.fetchall() for cursor in db.execute(without_relay).results()]
        assert (1, {"order": 42, "total": 99.5}) in results[1], "a consumer polls what was published"
        assert results[3][0][1] == {"n": 1}, "a worker claims what came in"
        db.execute("insert into orders values (43, 1)")
        [(changed,)] = db.execute("select payload -> 'inserted' from tide.message order by created_at desc limit 1")
        assert changed == [{"id": 43, "total": 1}]

        db.execute(stream_table)
        wait_until(
            lambda: db.execute("table order_totals").fetchall() == [(2, 100.5)], 60, "the stream table is filled"
        )

        doctor = running.verb("doctor")
        assert doctor.returncode == 0, doctor.stdout
