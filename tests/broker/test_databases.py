"""Two databases on one broker: what is of one is never taken by the workers of the other."""

import threading
from queue import Queue

import pytest

from relay.broker import identity as identity_module
from relay.broker.factory import depths, has_sign, leave_sign, make_broker, serve
from relay.broker.identity import Identity
from relay.errors import NotConnected
from tests.broker.brokers import drain, numbers, running_worker, send
from tests.waiting import wait_until


@pytest.fixture(params=["redis_server", "rabbitmq_server"])
def url(request, run_dir):
    return request.getfixturevalue(request.param).url


def test_workers_that_were_left_to_another_database_take_nothing(url):
    ours: Queue = Queue()
    theirs: Queue = Queue()
    with running_worker(url, theirs.put, identity=lambda: "b" * 16, idle_timeout_ms=200):
        send(url, *map(drain, range(20)), identity="a" * 16)
        broker = make_broker(url)
        serve(broker, lambda: "a" * 16)
        wait_until(lambda: depths(broker)[0].messages == 20, what="all wait")
        assert depths(broker)[0].consumers == 0
        with running_worker(url, ours.put, identity=lambda: "a" * 16, idle_timeout_ms=200):
            assert sorted(numbers(ours, 20)) == list(range(20))
            wait_until(lambda: depths(broker)[0].consumers == 1, what="the worker is seen")
            send(url, drain(21), identity="b" * 16)
            assert numbers(theirs, 1) == [21]
        assert ours.empty() and theirs.empty()
        broker.close()


def test_a_scheduler_is_seen_on_its_broker_by_others_and_not_by_a_name_that_no_one_has(url):
    scheduler, other = make_broker(url), make_broker(url)
    try:
        assert not has_sign(other, "a")
        leave_sign(scheduler, "a")
        leave_sign(scheduler, "a")  # as it does every few seconds
        assert has_sign(other, "a") and not has_sign(other, "b")
        assert has_sign(scheduler, "a")
    finally:
        scheduler.close()
        other.close()


def test_a_worker_serves_once_the_database_is_there_and_follows_one_that_is_replaced(url, monkeypatch):
    monkeypatch.setattr(identity_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.05)
    seen: Queue = Queue()
    asked, there, answers = threading.Event(), threading.Event(), ["c" * 16]

    def read() -> str:
        asked.set()
        if not there.is_set():
            raise NotConnected("PostgreSQL is down")
        return answers[-1]

    send(url, drain(1), identity="c" * 16)
    send(url, drain(2), identity="d" * 16)
    with running_worker(url, seen.put, identity=Identity(read), idle_timeout_ms=100):
        assert asked.wait(20)
        assert seen.empty()
        there.set()
        assert numbers(seen, 1) == [1]
        there.clear()  # an outage changes nothing
        send(url, drain(3), identity="c" * 16)
        assert numbers(seen, 1) == [3]
        there.set()
        answers.append("d" * 16)
        assert numbers(seen, 1) == [2]
