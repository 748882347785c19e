"""What is true of the NATS sink alone, on a real server."""

from collections.abc import Callable
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from relay.backends.nats.sink import NatsSink
from relay.backends.registry import sink_class
from relay.errors import ConfigError, NotConnected
from tests.backends.nats.harness import NatsHarness
from tests.backends.steps import Limits, claims, opened, publish, start
from tests.services.halt import halted
from tests.services.nats import NatsServer
from tests.waiting import wait_until


@pytest.fixture
def harness(nats_harness: NatsHarness) -> NatsHarness:
    return nats_harness


class TestRefusals:
    @pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.*", "$JS.API.STREAM.PURGE.x"])
    def test_a_subject_that_cannot_be_is_refused_for_good(self, harness: NatsHarness, subject: str) -> None:
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(subject=subject)
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "bad_subject")]
        assert harness.ids() == [1, 3]

    def test_a_header_that_cannot_be_is_refused_for_good(self, harness: NatsHarness) -> None:
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(headers={"a b": "x"})
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "bad_header")]
        assert harness.ids() == [1, 3]

    def test_the_servers_own_limit_holds(self, configured_nats: Callable[..., NatsHarness]) -> None:
        harness = configured_nats(max_payload=4096)
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(body=b"x" * 4050)
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "too_large")]
        assert harness.ids() == [1, 3]

    def test_the_streams_own_limit_holds(self, harness: NatsHarness) -> None:
        harness.make_stream(subjects=[f"{harness.stream}.>"], max_msg_size=1000)
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(body=b"x" * 1000)
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "too_large")]
        assert harness.ids() == [1, 3]

    def test_headers_beyond_what_jetstream_takes_are_too_large(self, harness: NatsHarness) -> None:
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(headers={"long": "x" * 70_000})
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "too_large")]
        assert harness.ids() == [1, 3]

    def test_a_full_stream_is_temporary(self, harness: NatsHarness) -> None:
        subjects = [f"{harness.stream}.>"]
        harness.make_stream(subjects=subjects, max_msgs=3, discard=DiscardPolicy.NEW)
        batch = harness.records(*"abcde")
        with opened(harness) as sink:
            failures = publish(sink, batch)
            assert [(f.index, f.permanent, f.code) for f in failures] == [
                (3, False, "stream_full"),
                (4, False, "stream_full"),
            ]
            with pytest.raises(NotConnected) as caught:
                publish(sink, batch[3:])
        assert caught.value.code == "stream_full"

    def test_commands_to_the_server_do_not_travel_as_headers_of_a_message(self, harness: NatsHarness) -> None:
        (sent,) = harness.records("a")
        sent = sent._replace(headers={"Nats-Expected-Last-Sequence": "99", "Nats-Msg-Id": "forged", "mine": "1"})
        with opened(harness) as sink:
            assert publish(sink, [sent]) == []
        (seen,) = harness.read_all()
        assert (seen.headers["Nats-Msg-Id"], seen.headers["mine"]) == ("orders:1", "1")


class TestASubjectThatNoStreamTakes:
    def subjects(self, harness: NatsHarness) -> dict[str, Any]:
        return {"stream_subjects": [f"{harness.stream}.taken"]}

    def test_is_temporary_because_the_stream_can_be_mended(self, harness: NatsHarness) -> None:
        with opened(harness, **self.subjects(harness)) as sink:
            failures = publish(sink, harness.records("taken", "other"))
            assert [(f.index, f.permanent, f.code) for f in failures] == [(1, False, "no_stream")]
            assert ".other" in failures[0].reason

    def test_is_not_connected_when_nothing_else_was_delivered(self, harness: NatsHarness) -> None:
        with opened(harness, **self.subjects(harness)) as sink, pytest.raises(NotConnected) as caught:
            publish(sink, harness.records("other"))
        assert caught.value.code == "no_stream"

    def test_a_stream_that_was_deleted_is_made_again_by_opening(self, harness: NatsHarness) -> None:
        with opened(harness) as sink:
            harness.delete_stream()
            with pytest.raises(NotConnected):
                publish(sink, harness.records("a"))
            sink.open()
            assert publish(sink, harness.records("a")) == []

    def test_another_streams_subject_is_not_taken_for_ours(self, harness: NatsHarness, nats_server: NatsServer) -> None:
        other = NatsHarness(nats_server)
        with opened(harness) as sink, opened(other):
            failures = publish(sink, [harness.records("a")[0], other.records("a", "b")[1]])
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, False, "wrong_stream")]
        assert other.read_all() == []


class TestOrder:
    """A subject that no stream takes, in mid-batch, stands for any refusal that is over later."""

    def test_within_a_chunk_a_later_record_can_overtake_a_refused_one(self, harness: NatsHarness) -> None:
        with opened(harness, stream_subjects=[f"{harness.stream}.taken"]) as sink:
            failures = publish(sink, harness.records("taken", "other", "taken"))
        assert [f.index for f in failures] == [1]
        assert harness.ids() == [1, 3]

    def test_nothing_of_a_later_chunk_does(self, harness: NatsHarness) -> None:
        options = {"stream_subjects": [f"{harness.stream}.taken"], "max_in_flight": 1}
        with opened(harness, **options) as sink:
            failures = publish(sink, harness.records("taken", "other", "taken", "taken"))
        assert [(f.index, f.code) for f in failures] == [(1, "no_stream"), (2, "not_sent"), (3, "not_sent")]
        assert harness.ids() == [1]

    def test_nothing_does_with_strict_order(self, harness: NatsHarness) -> None:
        options = {"stream_subjects": [f"{harness.stream}.taken"], "strict_order": True}
        with opened(harness, **options) as sink:
            failures = publish(sink, harness.records("taken", "other", "taken", "taken"))
        assert [(f.index, f.code) for f in failures] == [(1, "no_stream"), (2, "out_of_order"), (3, "out_of_order")]
        assert harness.ids() == [1]

    @pytest.mark.parametrize("max_in_flight", [2, 1000])
    def test_with_strict_order_a_batch_can_be_sent_again(self, harness: NatsHarness, max_in_flight: int) -> None:
        with opened(harness, strict_order=True, max_in_flight=max_in_flight) as sink:
            batch = harness.records(*"abcdefgh")
            assert publish(sink, batch[:5]) == []
            assert publish(sink, batch) == []
            assert publish(sink, batch) == []
        assert harness.ids() == [1, 2, 3, 4, 5, 6, 7, 8]


class TestTheStream:
    def test_is_made_as_configured(self, harness: NatsHarness) -> None:
        with opened(harness, duplicate_window_ms=5000) as sink:
            assert publish(sink, harness.records("a")) == []
        config = harness.stream_config()
        assert (config.duplicate_window, config.num_replicas) == (5.0, 1)
        assert config.subjects == [config.name, f"{config.name}.>"]

    def test_that_exists_is_not_changed(self, harness: NatsHarness) -> None:
        harness.make_stream(subjects=["elsewhere.>"])
        with opened(harness):
            pass
        assert harness.stream_config().subjects == ["elsewhere.>"]
        harness.delete_stream()

    def test_that_acknowledges_nothing_is_refused(self, harness: NatsHarness) -> None:
        harness.make_stream(subjects=[f"{harness.stream}.>"], no_ack=True)
        with pytest.raises(ConfigError, match="no_ack"):
            harness.make_sink().open()

    def test_cannot_be_without_jetstream(self, configured_nats: Callable[..., NatsHarness]) -> None:
        harness = configured_nats(jetstream=None)
        with pytest.raises(ConfigError, match="JetStream"):
            harness.make_sink(timeout_ms=2000).open()


def test_a_connection_that_breaks_during_a_publish_is_noticed_at_once(
    harness: NatsHarness, nats_server: NatsServer
) -> None:
    with opened(harness, timeout_ms=60_000) as sink:
        assert isinstance(sink, NatsSink)
        assert sink._connection is not None
        with halted(nats_server.pid):
            ended = start(lambda: claims(sink, harness.records("a", "b")))
            wait_until(lambda: sink._connection is not None and sink._connection._waiting)
            nats_server.kill()
        assert ended(Limits.moment_seconds) == set()


def test_every_server_of_the_list_is_tried(harness: NatsHarness) -> None:
    sink = harness.make_sink(url=["nats://127.0.0.1:1", harness.config()["url"]])
    for _ in range(3):
        sink.open()
    sink.close()


def test_a_batch_larger_than_what_is_in_flight_at_a_time_arrives_in_order(harness: NatsHarness) -> None:
    batch = harness.records(*(["a"] * 300), body=b"x" * 50_000)
    with opened(harness, max_in_flight=77) as sink:
        assert publish(sink, batch) == []
    assert harness.ids() == list(range(1, 301))


def test_the_sink_is_the_one_of_the_table() -> None:
    assert sink_class("nats") is NatsSink
