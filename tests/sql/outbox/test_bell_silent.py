"""Bells are silent while no one could answer: publishers would pay for every NOTIFY and deliver nothing sooner."""

import pytest

from relay.drains import lease
from relay.drains.fence import end
from relay.drains.lease import DrainResult, failed
from relay.models import Drain
from relay.sql import query

CONFIG = '{"sink_type": "memory"}'


@pytest.fixture
def session(database):
    """With a pipeline `p` whose drain 1 has the lease, and whose bell is armed."""
    with database.connect() as session:
        session.execute("select tide.outbox_create('o')")
        session.execute("select tide.relay_set_outbox('p', 'o', %s::jsonb)", [CONFIG])
        session.execute("update tide.bell set armed = true")
        yield session


def begin(session):
    epoch = session.execute("update tide.drain set number = 0 returning epoch").fetchone()[0]
    drain = Drain("p", epoch, 1, 30_000)
    assert lease.begin(session, drain)
    return drain


def armed(session):
    return session.execute("select armed from tide.bell").fetchone()[0]


def test_a_failed_drain_leaves_the_bell_silent_because_only_its_retry_can_help(session):
    end(session, begin(session), failed(0, "down", "the sink is down"))
    assert not armed(session)


def test_an_idle_drain_leaves_the_bell_armed(session):
    end(session, begin(session), DrainResult("idle"))
    assert armed(session)


def test_a_disabled_pipeline_has_a_silent_bell(session):
    session.execute("select tide.relay_disable('p')")
    assert not armed(session)


def test_a_drain_that_armed_the_bell_of_a_pipeline_disabled_meanwhile_silences_it_again(session):
    drain = begin(session)
    session.execute("select tide.relay_disable('p')")
    session.execute("update tide.bell set armed = true")
    end(session, drain, DrainResult("idle"))
    assert not armed(session)


def test_enabling_leaves_the_bell_to_the_drain_that_follows(session):
    session.execute("select tide.relay_disable('p')")
    session.execute("select tide.relay_enable('p')")
    assert not armed(session)


def silence(session, drain):
    scheduler_id = session.execute("update tide.drain set owner = gen_random_uuid() returning owner").fetchone()[0]
    fence = {"pipeline": "p", "epoch": drain.epoch, "number": drain.number, "scheduler_id": scheduler_id}
    session.execute(query("bell_silence"), fence)


def test_the_owner_silences_the_bell_while_its_drain_waits_for_a_worker(session):
    silence(session, Drain("p", 0, 1, 30_000))
    assert not armed(session)


def test_the_owner_never_silences_the_bell_of_a_drain_that_has_begun_for_it_may_be_asleep_already(session):
    silence(session, begin(session))
    assert armed(session)


def test_a_scheduler_that_is_the_owner_no_more_silences_nothing(session):
    session.execute("update tide.drain set epoch = 7")
    silence(session, Drain("p", 0, 1, 30_000))
    assert armed(session)
