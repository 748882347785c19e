"""What is true of the NATS source alone, on a real server."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from nats.js import JetStreamContext

from relay.backends.nats.source import NatsSource
from relay.backends.registry import source_class
from relay.errors import NotConnected
from relay.models import Received
from tests.backends.nats.harness import ConfiguredNats
from tests.backends.nats.source_harness import NatsSourceHarness, killed
from tests.backends.source_harness import Sent
from tests.backends.source_steps import Inbox, messages, numbers, opened, receive, store, take
from tests.backends.steps import Limits, within
from tests.docs.backend_pages import page, section
from tests.services.nats import NatsServer
from tests.waiting import wait_until


@pytest.fixture
def harness(nats_server: NatsServer) -> NatsSourceHarness:
    return NatsSourceHarness(nats_server)


def publish_raw(harness: NatsSourceHarness, command: bytes, content: bytes) -> None:
    """What no client would send."""
    address = urlsplit(harness.config()["url"])
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        who = {"user": address.username, "pass": address.password, "verbose": False, "headers": True}
        connection.sendall(f"CONNECT {json.dumps(who)}\r\n".encode() + command + content + b"\r\nPING\r\n")
        heard = b""
        while b"PONG" not in heard:
            heard += (read := connection.recv(4096))
            assert read, heard


class TestWhatItHandsOut:
    @pytest.mark.parametrize(
        "head",
        [
            b"NATS/1.0 \xff\xff\xff\r\n\r\n",
            b"NATS/1.0",
            b"NATS/1.0 200 \xff\r\na: b\r\n\r\n",
            b"NATS/1.0\r\n\xff: \xff\r\n\r\n",
        ],
    )
    def test_headers_that_cannot_be_read_do_not_stop_the_stream(self, harness: NatsSourceHarness, head: bytes) -> None:
        harness.send(messages(1, 1))
        body = b'{"n": 2}'
        publish_raw(
            harness, b"HPUB %s %d %d\r\n" % (harness.subject.encode(), len(head), len(head + body)), head + body
        )
        harness.send(messages(3, 1))
        with opened(harness) as source:
            arrived = take(source, 3)
            source.ack(arrived)
        assert numbers(arrived) == [1, 2, 3]
        assert [message.failure for message in arrived if message.body != body] == [None, None]
        with opened(harness) as source:
            assert receive(source, 10, 0.1) == []

    def test_the_id_is_the_one_that_the_producer_gave(self, harness: NatsSourceHarness) -> None:
        harness.send([Sent(b"1", None, {"Nats-Msg-Id": "orders:7"})])
        with opened(harness) as source:
            (received,) = take(source, 1)
        assert (received.id, received.subject) == ("orders:7", harness.subject)

    def test_without_one_it_is_the_stream_the_sequence_and_the_time(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 2))
        with opened(harness) as source:
            first, second = take(source, 2)
        assert first.id.startswith(f"{harness.stream}/1/")
        assert second.id.startswith(f"{harness.stream}/2/")
        assert first.id.rpartition("/")[2] < second.id.rpartition("/")[2]

    def test_a_stream_made_anew_gives_new_ids_and_is_read_from_its_beginning(self, harness: NatsSourceHarness) -> None:
        inbox = Inbox()
        for _ in range(2):
            harness.send(messages(1, 3))
            with opened(harness, inbox.positions) as source:
                store(source, inbox, take(source, 3))
            harness.nats.delete_stream()
            harness.nats.make_stream(subjects=[f"{harness.stream}.>"])
        assert (len(inbox.rows), inbox.repeats) == (6, 0)

    def test_only_the_subjects_asked_for_come(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 2))
        with opened(harness, subject=f"{harness.stream}.other", consumer="other") as source:
            assert receive(source, 10, 0.2) == []
        with opened(harness, subject=f"{harness.stream}.or*", consumer="broken-off") as source:
            assert receive(source, 10, 0.2) == []
        with opened(harness, subject=f"{harness.stream}.*", consumer="all") as source:
            assert numbers(take(source, 2)) == [1, 2]

    def test_a_message_larger_than_all_that_may_be_held_comes_alone(
        self, harness: NatsSourceHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relay.backends.nats.receiver.MAX_HELD_BYTES", 5_000)
        harness.send(messages(1, 2) + messages(3, 1, padding=20_000) + messages(4, 2))
        with opened(harness) as source:
            batches = [numbers(receive(source, 100, 1)) for _ in range(3)]
        assert batches == [[1, 2], [3], [4, 5]]


class TestAfterAKill:
    def test_the_next_worker_receives_everything_at_once_and_in_order(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 3000))
        inbox = Inbox()
        # Longer than the patience of a test.
        with opened(harness, ack_wait_ms=60_000) as source:
            store(source, inbox, take(source, 500))
            take(source, 1000)
            killed(source)
        assert harness.consumer_info()["num_ack_pending"] == 1000
        with opened(harness, inbox.positions, ack_wait_ms=60_000) as source:
            assert numbers(take(source, 2500)) == list(range(501, 3001))

    def test_an_acknowledgement_that_did_not_arrive_costs_repeats_only(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 10))
        inbox = Inbox()
        with opened(harness) as source:
            first, second = take(source, 4), take(source, 4)
            inbox.write([*first, *second])
            source.ack(second)
            killed(source)
        with opened(harness, inbox.positions) as source:
            again = take(source, 6)
            assert numbers(again) == [1, 2, 3, 4, 9, 10]
            store(source, inbox, again)
        assert inbox.repeats == 4
        wait_until(lambda: harness.consumer_info()["num_ack_pending"] == 0)

    def test_a_consumer_that_is_full_of_what_it_held_does_not_hold_up_whoever_does_not_wait(
        self, harness: NatsSourceHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        harness.send(messages(1, 30))
        with opened(harness, max_ack_pending=10) as source:
            take(source, 10)
            killed(source)
        monkeypatch.setattr("relay.backends.nats.receiver._MOST_GIVEN_BACK", 0)
        with opened(harness, timeout_ms=60_000) as source:
            assert within(Limits.moment_seconds, lambda: receive(source, 10, 0)) == []


def test_what_the_server_sends_again_while_it_is_held_is_not_handed_out_twice(harness: NatsSourceHarness) -> None:
    harness.send(messages(1, 5))
    with opened(harness, ack_wait_ms=1_000) as source:
        held = take(source, 5)
        again: list[Received] = []

        def came_again() -> bool:
            again.extend(receive(source, 10, 0.2))
            return bool(harness.consumer_info()["num_redelivered"] == 5)

        wait_until(came_again)
        source.ack(held)
        assert again + receive(source, 10, 0.2) == []
    wait_until(lambda: harness.consumer_info()["num_ack_pending"] == 0)


def test_what_is_given_back_on_closing_is_there_for_any_reader(harness: NatsSourceHarness) -> None:
    harness.send(messages(1, 5))
    with opened(harness) as source:
        take(source, 5)

    async def read(jetstream: JetStreamContext) -> int:
        reader = await jetstream.pull_subscribe_bind(harness.consumer, harness.stream)
        return len(await reader.fetch(5, timeout=Limits.moment_seconds))

    assert harness.nats._ask(read) == 5


def test_a_server_that_does_not_answer_is_said_so(harness: NatsSourceHarness) -> None:
    with opened(harness, timeout_ms=200) as source:
        with harness.stall(), pytest.raises(NotConnected) as caught:
            receive(source, 10, 0.1)
        assert caught.value.code == "timeout"
        # What it still sends would reach no one.
        with pytest.raises(NotConnected):
            receive(source, 10, 0.1)


def test_an_idle_source_costs_one_request_for_each_wait(harness: NatsSourceHarness) -> None:
    with opened(harness) as source:
        receive(source, 10, 0.05)
        assert isinstance(source, NatsSource)
        receiver = source._receiver
        assert receiver is not None
        before = receiver._client.stats["out_msgs"]
        for _ in range(5):
            receive(source, 10, 0.05)
            source.release()
        assert receiver._client.stats["out_msgs"] - before == 5


def test_a_header_of_status_is_no_status(harness: NatsSourceHarness) -> None:
    harness.send([Sent(b'{"n": 1}', None, {"Status": "409", "Description": "Consumer Deleted"})])
    with opened(harness) as source:
        (received,) = take(source, 1)
    assert received.headers["Status"] == "409"


def test_the_permissions_of_the_page_suffice(own_dirs: Callable[[], Path]) -> None:
    text = section(page("nats"), "Source")
    (sentence,) = re.findall(r"A user with limited permissions may publish to (.*?), and subscribe", text, re.DOTALL)
    server = ConfiguredNats(own_dirs())
    with server:
        stream = NatsSourceHarness(server).stream
        allowed = [subject.replace("commands", stream) for subject in re.findall("`(.*?)`", sentence)]
        permissions = {"publish": {"allow": allowed}, "subscribe": "_INBOX.>"}
        users = [
            {"user": "tide", "password": server.password},
            {"user": "limited", "password": "p", "permissions": permissions},
        ]
        server.stop()
        server._extra = {"authorization": {"users": users}}
        server.start()
        harness = NatsSourceHarness(server, stream)
        harness.send(messages(1, 3))
        url = server.url.replace(f"tide:{server.password}", "limited:p")
        with opened(harness, url=url) as source:
            received = take(source, 3)
            source.ack(received[:1])
            source.release()
            assert numbers(take(source, 2)) == [2, 3]


def test_the_source_is_the_one_of_the_table() -> None:
    assert source_class("nats") is NatsSource
