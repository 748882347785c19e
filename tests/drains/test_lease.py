"""Retry times are bounded, and a lease is never thought longer than it is."""

import time

from hypothesis import given
from hypothesis import strategies as st

from relay.drains.lease import Lease, failed
from relay.models import Drain

DRAIN = Drain("p", 3, 7, 1000)


@given(st.integers(0, 10_000))
def test_a_retry_waits_up_to_100_ms_doubling_to_30_s(failures):
    result = failed(failures, "timeout", "slow")
    assert result.retry_seconds is not None
    assert 0 <= result.retry_seconds <= min(30.0, 0.1 * 2 ** min(failures, 20))
    assert (result.outcome, result.failures, result.error_code, result.error) == (
        "failed",
        failures + 1,
        "timeout",
        "slow",
    )


def test_the_jitter_is_full(monkeypatch):
    bounds = []

    def uniform(low, high):
        bounds.append((low, high))
        return high

    monkeypatch.setattr("relay.drains.lease.random.uniform", uniform)
    for failures in (0, 1, 2, 8, 9, 100):
        failed(failures, "x", "y")
    assert bounds == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 25.6), (0, 30.0), (0, 30.0)]


def test_progress_starts_the_count_again():
    assert failed(9, "x", "y", progressed=True).failures == 1


@given(st.integers(0, 100), st.floats(-10, 1e9))
def test_a_receiver_that_asks_for_a_pause_gets_it_within_an_hour(failures, asked):
    result = failed(failures, "throttled", "later", asked_seconds=asked)
    assert result.retry_seconds is not None
    assert min(asked, 3600.0) <= result.retry_seconds <= 3600.0
    assert 0 <= result.retry_seconds <= max(0.0, asked) + 30.0


def test_a_lease_covers_what_ends_before_it():
    now = time.monotonic()
    lease = Lease(DRAIN, 10.0, now)
    assert lease.covers(0)
    assert lease.covers(9)
    assert not lease.covers(10.1)


def test_a_lease_counts_from_before_its_renewal_was_sent():
    now = time.monotonic()
    lease = Lease(DRAIN, 10.0, now - 20)
    assert not lease.covers(0)
    lease.renewed(now - 5)
    assert lease.covers(4)
    assert not lease.covers(6)


def test_a_renewal_that_is_reported_late_does_not_shorten_a_lease():
    now = time.monotonic()
    lease = Lease(DRAIN, 10.0, now)
    lease.renewed(now - 8)
    assert lease.covers(9)
