"""The pages of the concepts, block after block as they are printed: what they say of the result is so."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.local.servers import EmbeddedRedis
from tests.backends.nats.source_harness import NatsSourceHarness
from tests.cli.command import invoke
from tests.docs.pages import blocks, substituted, text_of
from tests.e2e.drains import Drains, draining
from tests.e2e.fleet import fleet
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)
NATS = "nats://localhost:4222"


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


def results(db: psycopg.Connection, block: str) -> list[list[Any]]:
    """The rows of each statement that gives any."""
    return [cursor.fetchall() for cursor in db.execute(block).results() if cursor.description]


def rows(db: psycopg.Connection, block: str) -> list[Any]:
    """Of the last of them."""
    return results(db, block)[-1]


def run_verbs(page: str, url: str) -> None:
    """The commands of a page, which must succeed."""
    for line in "\n".join(blocks(page, "sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "relay"
        done = invoke(*arguments, url=url)
        assert done.exit_code == 0, done.output


def test_an_outbox(db: psycopg.Connection) -> None:
    publish, roll_back, insert, horizon, partitions, consume = blocks("concepts/outbox")
    db.execute(publish)
    assert rows(db, roll_back) == [(1, "customer-7", {"order": 42, "total": 99.5})], "what was rolled back is not there"
    db.execute(insert)
    assert rows(db, horizon) == [(3, 3, 0)], "the id between is gone, and the horizon knows"
    [(retention_hours, partition_count, _, _)] = rows(db, partitions)
    assert (retention_hours, partition_count > 0) == (24, True)
    _, polled, _ = results(db, consume)
    assert polled == [(1, {"order": 42, "total": 99.5}), (3, {"id": 44, "total": 12})]


def test_an_inbox(db: psycopg.Connection) -> None:
    receive, work, fail, look, order = blocks("concepts/inbox")
    db.execute(receive)
    assert db.execute("select count(*) from tide.payments").fetchall() == [(2,)], "a second p-1 is left out"
    assert rows(db, work) == [(1,)], "one message is marked"
    assert rows(db, fail) == [("retry",)]
    assert rows(db, look) == [("p-1", True, 0, None), ("p-2", False, 1, "the bank does not answer")]
    db.execute(order)


def test_a_pipeline(drains: Drains, database: Database, own_nats: Callable[[], NatsServer]) -> None:
    server = own_nats()
    harness = NatsSourceHarness(server, name="orders")
    forward, reverse, look, change, lanes = blocks("concepts/pipeline")
    drains.db.execute(substituted(forward, {NATS: server.url}))
    drains.until_idle("orders-to-nats")
    [seen] = harness.nats.read_all()
    subjects = harness.ask("STREAM.INFO.orders", {"subjects_filter": ">"})["state"]["subjects"]
    assert subjects == {"orders.update": 1}
    assert json.loads(seen.body)["payload"] == {"order": 42}
    drains.db.execute(substituted(reverse, {NATS: server.url}))
    drains.query("update tide.pipeline set config = config || '{\"slice_ms\": 100}'")  # else the test waits for it
    drains.until("nats-to-commands", lambda: drains.query("select 1 from tide.commands"))
    assert rows(drains.db, look) == [("orders:1", "customer-7", {"order": 42})]
    assert [row[0] for row in rows(drains.db, change)] == ["nats-to-commands", "orders-to-nats"]
    run_verbs("concepts/pipeline", database.url)
    assert 0 <= rows(drains.db, substituted(lanes, {NATS: server.url}))[0][0] < 4


def test_ownership(db: psycopg.Connection, database: Database, redis_server: EmbeddedRedis) -> None:
    make, look = blocks("concepts/ownership")
    db.execute(make)
    with fleet(database.url, redis_server.url):
        wait_until(lambda: rows(db, "select payload from tide.orders_in") == [({"order": 42},)], 120)
        run_verbs("concepts/ownership", database.url)
        [[(pipeline, lane, epoch, number, *_)], schedulers] = results(db, look)
        assert (pipeline, lane, epoch > 0, number > 0) == ("orders-to-inbox", 0, True, True)
        assert len(schedulers) == 1


def test_jobs(db: psycopg.Connection) -> None:
    first, state, later, limits, once, dedupe = blocks("jobs/concepts")
    db.execute(first)
    assert rows(db, state) == [("pending",)]
    db.execute(later)
    [(priority, in_time)] = rows(
        db, "select priority, available_at > now() + interval '23 hours' from tide.job_list('mail', max_rows => 1)"
    )
    assert (priority, in_time) == (10, True)
    db.execute(limits)
    assert rows(db, "select concurrency_limit, key_limit from tide.job_queue where name = 'imports'") == [(8, 1)]
    one, same = results(db, once)
    assert one == same, "the second call returns the first job"
    [first_of_three] = rows(db, dedupe)
    assert rows(db, dedupe) == [first_of_three], "no second one is enqueued until it begins"


def test_each_block_is_of_a_kind_that_a_test_runs() -> None:
    assert {line[3:] for line in text_of("jobs/concepts").splitlines() if line.startswith("```")} == {"", "sql", "text"}
    for name in ("outbox", "inbox", "pipeline", "ownership"):
        text = (Path(__file__).parents[2] / f"docs/concepts/{name}.md").read_text("utf-8")
        assert {line[3:] for line in text.splitlines() if line.startswith("```")} <= {"", "sql", "sh"}
