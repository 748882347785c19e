"""A fleet on a schema that is newer than it: it works on if that is compatible, and refuses clearly if not.

And a fleet, publishers and `relay migrate` at once: nothing fails, nothing is lost.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from relay.database import migrate as migrations
from relay.sql import Migration
from relay.sql import migrations as known
from tests.fleets.pipelines import Pipelines
from tests.fleets.processes import Fleet, running_fleet
from tests.sql.support import publish
from tests.waiting import wait_until

LATER = "9999"
LAST = Migration(int(LATER), "later", "alter table tide.outbox add column later int;")
SAYS = "with which this version cannot work; upgrade tide-relay"


def migrate_further(pipelines, *, compatible):
    """As a later version's `relay migrate` would."""
    pipelines.run(
        "insert into tide.migration (version, name, compatible) values (%s, 'later', %s)", int(LATER), compatible
    )
    pipelines.run("select pg_notify('tide_relay_config', '')")


def test_a_running_fleet_and_a_new_one_work_on_a_compatible_schema(fleet, pipelines):
    pipelines.make("orders")
    scheduler, workers = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    migrate_further(pipelines, compatible=True)
    pipelines.wait_delivered("orders", pipelines.publish("orders", 3))
    second = fleet.scheduler()
    scheduler.terminate()
    assert scheduler.wait_exit() == 0
    second.wait_ready()
    pipelines.wait_delivered("orders", pipelines.publish("orders", 3))
    assert workers.is_running


def test_schedulers_end_as_soon_as_the_schema_is_not_theirs_any_more(fleet, pipelines):
    pipelines.make("orders")
    scheduler = fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1h")
    fleet.wait_ready()
    migrate_further(pipelines, compatible=False)
    assert scheduler.wait_exit(20) == 1
    assert scheduler.says(f"it has migration {LATER}, {SAYS}")
    late = fleet.scheduler()
    assert late.wait_exit(30) == 1
    assert late.says(SAYS)


@pytest.mark.timeout(120)
def test_old_workers_give_drains_up_and_end_and_new_ones_deliver(fleet, pipelines):
    pipelines.make("orders", visibility_timeout_ms=5000)
    migrate_further(pipelines, compatible=False)
    ids = pipelines.publish("orders", 3)
    old = fleet.workers()
    old.wait_ready()
    fleet.scheduler(TEST_KNOWS_MIGRATION=LATER)
    old.wait_exit(40)
    assert old.says(SAYS)
    assert pipelines.delivered("orders") == []
    new = fleet.workers(TEST_KNOWS_MIGRATION=LATER)
    pipelines.wait_delivered("orders", ids, 40)
    assert new.is_running


class Publishers:
    """Two that publish, each message in a transaction of its own, until told to stop."""

    def __init__(self, database) -> None:
        self._database, self._stop = database, threading.Event()
        self.ids: list[int] = []
        self.slowest = 0.0

    def run(self) -> None:
        with self._database.connect() as session:
            while not self._stop.wait(0.005):
                began = time.monotonic()
                self.ids.append(publish(session))
                self.slowest = max(self.slowest, time.monotonic() - began)

    def go_on(self) -> None:
        before = len(self.ids)
        wait_until(lambda: len(self.ids) > before + 20, 20, "publishers go on")

    def __enter__(self) -> "Publishers":
        self._pool = ThreadPoolExecutor(2)
        self._running = [self._pool.submit(self.run) for _ in range(2)]
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for running in self._running:
            running.result()


@pytest.mark.timeout(180)
def test_publishers_and_an_old_fleet_run_while_the_schema_is_migrated_and_a_new_fleet_takes_over(
    database, redis_server, tmp_path, monkeypatch
):
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    pipelines.make("orders", visibility_timeout_ms=5000)
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        old_scheduler, old_workers = fleet.scheduler(), fleet.workers()
        fleet.wait_ready()
        with Publishers(database) as publishers:
            publishers.go_on()
            pipelines.wait_delivered("orders", list(publishers.ids))
            monkeypatch.setattr(migrations, "migrations", lambda: (*known(), LAST))
            assert migrations.migrate(database.url).migrations == (LAST,)
            publishers.go_on()
            refused(fleet)
            new_scheduler = fleet.scheduler(TEST_KNOWS_MIGRATION=LATER)
            new_workers = fleet.workers("new", TEST_KNOWS_MIGRATION=LATER)
            old_scheduler.terminate()
            old_workers.terminate()
            old_scheduler.wait_exit()
            old_workers.wait_exit()
            new_scheduler.wait_ready()
            new_workers.wait_ready()
            publishers.go_on()
        pipelines.wait_delivered("orders", publishers.ids, 60)
        pipelines.wait_settled()
    assert sorted(publishers.ids) == pipelines.committed("orders")
    assert set(pipelines.delivered("orders")) == set(publishers.ids)
    assert pipelines.dead_letters("orders") == []
    # As in the test of migrations: twice the lock's limit would be enough on a machine that has nothing else to do.
    assert publishers.slowest < 10 * migrations.LOCK_SECONDS


def refused(fleet: Fleet) -> None:
    """An old program that starts now says what is the matter, and ends."""
    late = fleet.scheduler()
    assert late.wait_exit(30) == 1
    assert late.says("upgrade tide-relay")
