"""The contract of a sink, as scenarios. Each backend passes all; one is skipped only by a declared feature.

A backend's test file subclasses `SinkSuite` and gives it a `harness` fixture. Another configuration of the same backend
runs the scenarios that may end otherwise with it (variants.py). `test_broken_fakes.py` shows that sinks which break the
contract fail here.
"""

import pytest

from relay.errors import ConfigError, NotConnected
from tests.backends.harness import PIPELINE, Harness
from tests.backends.steps import (
    Feeder,
    Limits,
    assert_first_arrivals_in_order,
    claims,
    deliver,
    holdings,
    needs,
    numbers,
    opened,
    publish,
    record,
    records,
    start,
    within,
)
from tests.backends.variants import Suite

STALL_TIMEOUT_MS = 300


class SinkSuite(Suite):
    def test_bodies_arrive_unchanged(self, harness: Harness) -> None:
        large = 512 * 1024
        bodies = [
            b'{"a": 1}',
            b"",
            '{"ü": "日本語 🚀 \\u0000"}'.encode(),
            b'"' + b"x" * large + b'"',
            b"null",
            b'"\\n"',
        ]
        sent = [record(harness, number, body=body) for number, body in enumerate(bodies, 1)]
        with opened(harness) as sink:
            assert publish(sink, sent) == []
        assert [seen.body for seen in harness.read_all()] == bodies

    def test_keys_arrive_beside_the_body(self, harness: Harness) -> None:
        needs(harness, harness.features.keeps_key, "keeps_key")
        keys = ["a", None, "ключ", "a b"]
        with opened(harness) as sink:
            assert publish(sink, [record(harness, number, key=key) for number, key in enumerate(keys, 1)]) == []
        assert [seen.key for seen in harness.read_all()] == keys

    def test_headers_arrive_beside_the_body(self, harness: Harness) -> None:
        needs(harness, harness.features.keeps_headers, "keeps_headers")
        sent = [
            record(harness, 1, headers={"relay-id": "orders:1", "trace": "00-ab"}),
            record(harness, 2, headers={"name": "Zoë 日本"}),
            record(harness, 3),
        ]
        with opened(harness) as sink:
            assert publish(sink, sent) == []
        for seen, expected in zip(harness.read_all(), sent, strict=True):
            assert seen.headers.items() >= expected.headers.items()

    def test_an_empty_batch_is_delivered_at_once(self, harness: Harness) -> None:
        with opened(harness) as sink:
            assert publish(sink, []) == []
        assert harness.read_all() == []

    def test_batches_arrive_whole_and_in_order(self, harness: Harness) -> None:
        sizes = [1, 250, 1000, 3, 1]
        with opened(harness) as sink:
            first = 1
            for size in sizes:
                assert publish(sink, records(harness, first, size)) == []
                first += size
                # Delivered means delivered now, not by the next call.
                assert len(harness.read_all()) == first - 1
        arrived = numbers(harness)
        assert sorted(arrived) == list(range(1, first))
        if harness.features.ordered:
            assert arrived == sorted(arrived)

    def test_a_sink_may_be_used_by_one_thread_after_the_other(self, harness: Harness) -> None:
        with opened(harness) as sink:
            sent = records(harness, 1, 2)
            assert within(Limits.patience_seconds, lambda: publish(sink, sent[:1])) == []
            assert publish(sink, sent[1:]) == []
        assert numbers(harness) == [1, 2]

    def test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive(self, harness: Harness) -> None:
        limit = harness.features.largest_record_bytes
        needs(harness, limit is not None, "largest_record_bytes")
        batch = records(harness, 1, 5)
        batch[2] = batch[2]._replace(body=b'"' + b"x" * (limit or 0) + b'"')
        with opened(harness) as sink:
            failures = publish(sink, batch)
            assert [(failure.index, failure.permanent, failure.code) for failure in failures] == [
                (2, True, "too_large")
            ]
            assert publish(sink, records(harness, 6, 1)) == []
        assert numbers(harness) == [1, 2, 4, 5, 6]

    def test_what_is_sent_again_is_suppressed_where_promised(self, harness: Harness) -> None:
        batch = records(harness, 1, 20)
        for _ in range(2):
            with opened(harness) as sink:
                assert publish(sink, batch[:10]) == []
                assert publish(sink, batch) == []
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 21))
        if harness.features.deduplicates:
            assert arrived == list(range(1, 21))

    def test_closing_is_harmless_at_any_time(self, harness: Harness) -> None:
        sink = harness.make_sink()
        within(Limits.moment_seconds, sink.close)
        sink.open()
        within(Limits.moment_seconds, sink.close)
        within(Limits.moment_seconds, sink.close)

    def test_a_sink_that_is_not_open_says_so(self, harness: Harness) -> None:
        sink = harness.make_sink()
        with pytest.raises(NotConnected):
            publish(sink, records(harness, 1, 1))
        with opened(harness) as sink:
            sink.close()
            with pytest.raises(NotConnected):
                publish(sink, records(harness, 1, 1))
        assert harness.read_all() == []

    def test_a_sink_opens_again_after_close_and_over_itself(self, harness: Harness) -> None:
        with opened(harness) as sink:
            assert publish(sink, records(harness, 1, 1)) == []
            sink.open()
            assert publish(sink, records(harness, 2, 1)) == []
            sink.close()
            sink.open()
            assert publish(sink, records(harness, 3, 1)) == []
        assert numbers(harness) == [1, 2, 3]

    def test_closing_leaves_no_thread_and_no_descriptor(self, harness: Harness) -> None:
        with opened(harness) as sink:
            publish(sink, records(harness, 1, 1))
        before = holdings()
        for number in range(2, 5):
            with opened(harness) as sink:
                publish(sink, records(harness, number, 1))
                sink.open()
        # Threads of earlier tests may still be ending.
        assert all(now <= then for now, then in zip(holdings(), before, strict=True))

    def test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit(self, harness: Harness) -> None:
        batch = records(harness, 1, 500, padding=600)
        with opened(harness, timeout_ms=STALL_TIMEOUT_MS) as sink:
            with harness.stall():
                claimed = within(STALL_TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: claims(sink, batch))
                within(STALL_TIMEOUT_MS / 1000 + Limits.moment_seconds, sink.close)
            assert claimed <= set(numbers(harness))
            deliver(sink, batch)
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 501))
        assert_first_arrivals_in_order(harness, arrived)

    def test_closing_during_a_publish_ends_both(self, harness: Harness) -> None:
        batch = records(harness, 1, 500, padding=600)
        sink = harness.make_sink(timeout_ms=1000)
        sink.open()
        try:
            with harness.stall():
                claimed = start(lambda: claims(sink, batch))
                within(1 + Limits.moment_seconds, sink.close)
                delivered = claimed(1 + Limits.moment_seconds)
            assert delivered <= set(numbers(harness))
        finally:
            within(Limits.patience_seconds, sink.close)

    def test_a_backend_that_is_down_is_not_connected_and_works_after_reopening(self, harness: Harness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        with opened(harness, timeout_ms=1000) as sink:
            assert publish(sink, records(harness, 1, 1)) == []
            harness.stop()
            try:
                with pytest.raises(NotConnected):
                    within(1 + Limits.moment_seconds, lambda: publish(sink, records(harness, 2, 5)))
                for never_opened in (sink, harness.make_sink(timeout_ms=1000)):
                    with pytest.raises(NotConnected):
                        within(1 + Limits.moment_seconds, never_opened.open)
                    never_opened.close()
            finally:
                harness.start()
            sink.open()
            assert publish(sink, records(harness, 2, 5)) == []
        assert set(numbers(harness)) == {1, 2, 3, 4, 5, 6}

    def test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch(self, harness: Harness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        # The claims of publish while the backend goes are what this is about: hence small batches, one after the other.
        with opened(harness, timeout_ms=2000) as sink, Feeder(harness, sink) as feeder:
            feeder.wait_for(delivered=200)
            for trouble in range(1, harness.restarts + 1):
                harness.stop()
                feeder.wait_for(troubles=trouble)
                harness.start()
                feeder.wait_for(feeder.delivered + 200)
        arrived = numbers(harness)
        assert set(range(1, feeder.delivered + 1)) <= set(arrived), "reported delivered, and missing"
        assert_first_arrivals_in_order(harness, arrived)

    def test_wrong_credentials_are_a_clear_error_for_a_person(self, harness: Harness) -> None:
        needs(harness, harness.features.needs_credentials, "needs_credentials")
        wrong = harness.wrong_credentials()
        sink = harness.make_sink(**wrong, timeout_ms=2000)
        with pytest.raises(ConfigError) as caught:
            within(2 + Limits.moment_seconds, sink.open)
        within(Limits.moment_seconds, sink.close)
        assert PIPELINE in str(caught.value)
        assert not any(str(value) in str(caught.value) for value in wrong.values())

    def test_a_missing_destination_is_a_clear_error_or_is_made_when_configured_so(self, harness: Harness) -> None:
        needs(harness, harness.features.needs_destination, "needs_destination")
        missing = harness.missing_destination()
        sink = harness.make_sink(**missing.overrides)
        with pytest.raises(ConfigError) as caught:
            within(Limits.moment_seconds, sink.open)
        sink.close()
        assert all(name in str(caught.value) for name in (PIPELINE, missing.name, *missing.create))
        with opened(harness, **missing.overrides | missing.create) as sink:
            assert publish(sink, [record(harness, 1)._replace(subject=missing.subject)]) == []
