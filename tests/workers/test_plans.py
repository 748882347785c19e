"""What a worker's sessions plan once, and what they plan each time."""

import pytest

from relay.drains import refresh
from relay.models import Failure
from workers import maintenance

PREPARED = "select statement, generic_plans, custom_plans from pg_prepared_statements"


@pytest.fixture
def plans(bench):
    """statement -> (generic, custom) plans, of the one session that drained, by a word that it contains."""

    def found(word):
        with bench.resources.pool.connection() as session:
            return [(generic, custom) for text, generic, custom in session.execute(PREPARED) if word in text]

    return found


def test_reads_of_messages_are_planned_each_time_and_nothing_else_is(bench, store, plans):
    """A generic plan of them would open, and lock, every partition of every outbox."""
    bench.query("select tide.outbox_create('other')")
    ids = bench.publish(40, payload="x" * 200_000)
    refused = {id_ for id_ in ids if id_ % 2}
    store.refuse = lambda index, record: Failure(index, True, "no", "no") if record.id in refused else None
    for _ in range(15):
        bench.publish(3)
        assert bench.drain() == "idle"
    bench.query("select tide.relay_replay('p', %s)", ids[0])
    assert bench.drain() == "idle"
    assert {generic for generic, _ in plans("tide.message")} == {0}
    for word in ("delivered = delivered +", "set armed = true", "d.lease_until is null", "tide_relay_drain"):
        assert any(generic for generic, _ in plans(word)), word


MODE = "show plan_cache_mode"


def test_maintenance_plans_for_the_values_at_hand(bench, monkeypatch):
    modes = []

    def noted(session, **_):
        modes.append(session.execute(MODE).fetchone())
        return maintenance.Counts()

    monkeypatch.setattr(maintenance, "run_once", noted)
    bench.query("update tide.chore set asked = true")
    maintenance.run(bench.resources)
    with bench.resources.pool.connection() as session:
        modes.append(session.execute(MODE).fetchone())
    assert modes == [("force_custom_plan",), ("auto",)]


def test_a_refresh_plans_for_the_values_at_hand(bench, monkeypatch):
    modes = []
    right = refresh._check_begun

    def noted(session, *more):
        right(session, *more)
        modes.append(session.connection.execute(MODE).fetchone())

    monkeypatch.setattr(refresh, "_check_begun", noted)
    bench.query("create table orders (id int primary key)")
    bench.query("select tide.create_stream_table('totals', 'select count(*) as n from orders')")
    [[name]] = bench.query("select pipeline from tide.stream")
    bench.drain(name)
    with bench.resources.pool.connection() as session:
        modes.append(session.execute(MODE).fetchone())
    assert modes == [("force_custom_plan",), ("auto",)]
