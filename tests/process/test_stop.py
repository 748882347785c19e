"""Stop: an event that signals set, and that a select can watch. What a second signal does: test_stop_signals.py."""

import os
import queue
import select
import signal
import threading
import time

import pytest

from relay.process.stop import Stop


def test_it_is_set_once_and_for_good() -> None:
    with Stop() as stop:
        assert not stop.is_set()
        assert not stop.wait(timeout_seconds=0)
        stop.set()
        stop.set()
        assert stop.is_set()
        assert stop.wait()


def test_a_wait_ends_after_its_time_when_nothing_happens() -> None:
    with Stop() as stop:
        started = time.monotonic()
        assert not stop.wait(timeout_seconds=0.05)
        assert time.monotonic() - started >= 0.04


def test_a_waiting_thread_wakes_when_another_sets_it() -> None:
    with Stop() as stop:
        answers: queue.Queue[bool] = queue.Queue()
        waiter = threading.Thread(target=lambda: answers.put(stop.wait(timeout_seconds=30)))
        waiter.start()
        stop.set()
        assert answers.get(timeout=10)
        waiter.join(10)


def test_a_select_wakes_and_stays_awake() -> None:
    with Stop() as stop:
        assert select.select([stop], [], [], 0)[0] == []
        stop.set()
        assert select.select([stop], [], [], 10)[0] == [stop]
        assert select.select([stop], [], [], 0)[0] == [stop]


def test_a_signal_wakes_the_main_thread_out_of_its_wait() -> None:
    with Stop() as stop:
        stop.on_signals([signal.SIGUSR1])
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert stop.wait(timeout_seconds=30)
        assert stop.signal_number == signal.SIGUSR1
        timer.join(10)


def test_closing_puts_the_earlier_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = Stop()
    stop.on_signals()
    stop.on_signals()
    stop.close()
    stop.close()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_closed_one_can_be_set_and_asked_but_not_waited_for() -> None:
    stop = Stop()
    stop.close()
    with pytest.raises(ValueError, match="closed"):
        stop.wait(timeout_seconds=0)
    stop.set()
    assert stop.is_set()
