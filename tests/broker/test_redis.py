"""Redis as the broker between scheduler and workers."""

import statistics
import threading
import time
from queue import Queue

import pytest
from structlog.testing import capture_logs

from relay.broker.factory import make_broker
from relay.broker.queues import enqueue_drain
from relay.broker.redis import WakingRedisBroker
from relay.errors import NotConnected
from relay.models import Drain
from tests.broker.brokers import (
    DEADLINE_SECONDS,
    FORWARD,
    REVERSE,
    drain,
    error_of_a_dead,
    numbers,
    running_worker,
    send,
)
from tests.waiting import wait_until


def test_a_drain_arrives_as_it_was_sent(redis_server):
    seen: Queue = Queue()
    sent = Drain("orders.to-nats", epoch=7, number=3, lease_ms=30_000)
    with running_worker(redis_server.url, seen.put):
        send(redis_server.url, sent)
        assert seen.get(timeout=DEADLINE_SECONDS) == sent


def test_an_idle_worker_picks_a_drain_up_without_polling(redis_server, record_property):
    seen: Queue = Queue()
    broker = make_broker(redis_server.url)
    milliseconds = []
    with running_worker(redis_server.url, lambda _: seen.put(time.perf_counter())):
        for number in range(50):
            sent = time.perf_counter()
            enqueue_drain(broker, drain(number), "forward")
            milliseconds.append((seen.get(timeout=DEADLINE_SECONDS) - sent) * 1000)
    broker.close()
    report = f"p50 {statistics.median(milliseconds):.1f} ms, max {max(milliseconds):.1f} ms"
    record_property("pick-up of an idle worker", report)
    print(report)


def test_drains_sent_before_a_worker_starts_are_found(redis_server):
    seen: Queue = Queue()
    send(redis_server.url, *map(drain, range(5)))
    with running_worker(redis_server.url, seen.put):
        assert sorted(numbers(seen, 5)) == [0, 1, 2, 3, 4]


def test_two_workers_share_so_that_no_drain_waits_behind_a_busy_thread(redis_server):
    all_at_once = threading.Barrier(8)
    seen: Queue = Queue()

    def meet(received: Drain) -> None:
        all_at_once.wait(DEADLINE_SECONDS)
        seen.put(received)

    with running_worker(redis_server.url, meet, threads=4), running_worker(redis_server.url, meet, threads=4):
        send(redis_server.url, *map(drain, range(8)))
        assert sorted(numbers(seen, 8)) == list(range(8))


def test_the_queues_of_drains_share_the_threads_of_a_worker_and_leave_the_rest_to_others(redis_server):
    all_at_once = threading.Barrier(8)
    begun: Queue = Queue()
    seen: Queue = Queue()

    def meet(received: Drain) -> None:
        begun.put(received)
        all_at_once.wait(DEADLINE_SECONDS)
        seen.put(received)

    def worker():
        return running_worker(redis_server.url, meet, threads=4, also=[REVERSE])

    with worker():
        send(redis_server.url, *map(drain, range(4)))
        assert sorted(numbers(begun, 4)) == list(range(4))
        send(redis_server.url, *map(drain, range(4, 8)), direction="reverse")
        with worker():
            assert sorted(numbers(seen, 8)) == list(range(8))


def test_a_full_worker_takes_the_next_drain_when_a_thread_is_free(redis_server):
    seen: Queue = Queue()
    gate = threading.Semaphore(0)

    def work(received: Drain) -> None:
        gate.acquire(timeout=DEADLINE_SECONDS)
        seen.put(received)

    with running_worker(redis_server.url, work, threads=1) as worker:
        send(redis_server.url, *map(drain, range(10)))
        consumer = worker.consumers[FORWARD]
        wait_until(lambda: consumer.consumer and consumer.consumer.outstanding_message_count, what="one is taken")
        for expected in range(10):
            gate.release()
            assert numbers(seen, 1) == [expected]
            assert consumer.consumer.outstanding_message_count <= 1


def test_there_is_no_consumer_for_delayed_messages(redis_server):
    with running_worker(redis_server.url, print) as worker:
        assert set(worker.consumers) == {FORWARD}


def test_a_stopping_worker_leaves_new_drains_to_others(redis_server):
    taken, gate = threading.Event(), threading.Event()
    seen: Queue = Queue()

    def hold(_: Drain) -> None:
        taken.set()
        gate.wait(DEADLINE_SECONDS)

    with running_worker(redis_server.url, hold, threads=2, idle_timeout_ms=100) as worker:
        send(redis_server.url, drain(1))
        assert taken.wait(DEADLINE_SECONDS)
        stop = threading.Thread(target=worker.stop, args=(DEADLINE_SECONDS * 1000,))
        stop.start()
        assert worker.broker.stopping.wait(DEADLINE_SECONDS)
        with running_worker(redis_server.url, seen.put):
            send(redis_server.url, *map(drain, range(2, 12)))
            assert sorted(numbers(seen, 10)) == list(range(2, 12))
            assert not gate.is_set() and stop.is_alive()
        gate.set()
        stop.join(DEADLINE_SECONDS)
        assert not stop.is_alive()


def test_a_drain_older_than_its_age_limit_is_dropped(redis_server):
    seen: Queue = Queue()
    broker = make_broker(redis_server.url)
    enqueue_drain(broker, drain(1, lease_ms=1), "forward")
    broker.close()
    sent = time.time()
    wait_until(lambda: time.time() > sent + 0.002)
    with running_worker(redis_server.url, seen.put):
        send(redis_server.url, drain(2))
        assert numbers(seen, 1) == [2]


def test_a_drain_whose_code_fails_is_not_tried_again(redis_server):
    seen: Queue = Queue()

    def fail(received: Drain) -> None:
        seen.put(received)
        raise RuntimeError("a bug")

    with running_worker(redis_server.url, fail, threads=1):
        send(redis_server.url, drain(1), drain(2))
        assert numbers(seen, 2) == [1, 2]
        left = make_broker(redis_server.url)
        wait_until(lambda: left.do_qsize(FORWARD) == 0, what="both are acknowledged")
        assert left.client.hlen(f"tide:{FORWARD}.XQ.msgs") == 0
        left.close()


def test_wakes_do_not_pile_up_when_no_worker_runs(redis_server):
    broker = make_broker(redis_server.url)
    assert isinstance(broker, WakingRedisBroker)
    for number in range(200):
        enqueue_drain(broker, drain(number), "forward")
    key = broker.wake_key(FORWARD)
    assert broker.client.llen(key) == 64
    assert 0 < broker.client.ttl(key) <= 60
    broker.close()


def test_a_waiting_worker_takes_a_drain_after_redis_forgot_the_scripts(redis_server):
    """What waits was sent before: the script that it names is not there any more when it is woken."""
    seen: Queue = Queue()
    broker = make_broker(redis_server.url)
    with capture_logs() as said, running_worker(redis_server.url, seen.put):
        for number in range(3):
            enqueue_drain(broker, drain(number), "forward")
            assert numbers(seen, 1) == [number]
            wait_until(lambda: not broker.client.exists(f"tide:{FORWARD}.msgs"), what="it is acknowledged")
            wait_until(lambda: broker.client.info("clients")["blocked_clients"], what="the worker waits")
            broker.client.script_flush()
    broker.close()
    assert not [entry for entry in said if entry["log_level"] == "error"]


def test_a_scheduler_replaces_a_connection_that_was_closed_meanwhile(redis_server):
    broker = make_broker(redis_server.url)
    for number in range(3):
        enqueue_drain(broker, drain(number), "forward")
        broker.client.client_kill_filter(_type="normal", skipme=True)
    assert broker.client.llen(f"tide:{FORWARD}") == 3
    broker.close()


def test_a_drain_that_a_full_worker_has_waited_for_is_given_back(redis_server):
    """Its queue was waited for when the last thread became busy with another."""
    held, gate = threading.Event(), threading.Event()
    seen: Queue = Queue()

    def hold(_: Drain) -> None:
        held.set()
        gate.wait(DEADLINE_SECONDS)

    with running_worker(redis_server.url, hold, threads=1, also=[REVERSE]):
        client = make_broker(redis_server.url).client
        wait_until(lambda: client.info("clients")["blocked_clients"] >= 2, what="both queues are waited for")
        send(redis_server.url, drain(1))
        assert held.wait(DEADLINE_SECONDS)
        send(redis_server.url, drain(2), direction="reverse")
        with running_worker(redis_server.url, seen.put, also=[REVERSE]):
            assert numbers(seen, 1) == [2]
        gate.set()
        client.close()


def test_a_flushed_redis_is_no_end(redis_server):
    seen: Queue = Queue()
    with running_worker(redis_server.url, seen.put):
        send(redis_server.url, drain(1))
        assert numbers(seen, 1) == [1]
        redis_server.flush()
        send(redis_server.url, drain(2))
        assert numbers(seen, 1) == [2]


def test_a_worker_goes_on_by_itself_when_redis_was_restarted_empty(own_redis):
    server = own_redis()
    server.start()
    seen: Queue = Queue()
    with running_worker(server.url, seen.put):
        send(server.url, drain(1))
        assert numbers(seen, 1) == [1]
        server.kill()
        server.start()
        send(server.url, drain(2))
        assert numbers(seen, 1) == [2]


def test_no_thread_waits_for_a_lost_redis_and_the_acknowledgement_is_sent_later(own_redis):
    server = own_redis(persistent=True)
    server.start()
    taken, gate = threading.Event(), threading.Event()
    seen: Queue = Queue()

    def work(received: Drain) -> None:
        taken.set()
        gate.wait(DEADLINE_SECONDS)
        seen.put(received)

    with running_worker(server.url, work, threads=1) as worker:
        send(server.url, drain(1))
        assert taken.wait(DEADLINE_SECONDS)
        server.stop()
        gate.set()
        assert numbers(seen, 1) == [1]
        wait_until(lambda: worker.consumers[FORWARD].consumer._owed, what="the acknowledgement is owed")
        assert worker.work_queue.unfinished_tasks <= 1
        server.start()
        send(server.url, drain(2))
        assert numbers(seen, 1) == [2]
        left = make_broker(server.url)
        wait_until(lambda: left.client.hlen(f"tide:{FORWARD}.msgs") == 0, what="both are acknowledged")
        left.close()


def test_enqueueing_to_a_dead_redis_raises_not_connected_and_shows_no_password(own_redis):
    server = own_redis()
    server.start()
    broker = make_broker(server.url)
    assert error_of_a_dead(server, broker).code == "not_connected"
    server.start()
    enqueue_drain(broker, drain(3), "forward")
    broker.close()


def test_a_wrong_password_is_told_from_a_lost_connection(redis_server):
    broker = make_broker(redis_server.url.replace(redis_server.password, "wrong-password"))
    with pytest.raises(NotConnected) as caught:
        enqueue_drain(broker, drain(1), "forward")
    assert caught.value.code == "auth"
    assert "wrong-password" not in str(caught.value)
    broker.close()
