"""What is true of the webhook sink alone."""

import base64
import json
import time
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from relay.backends.registry import sink_class
from relay.backends.webhook.sink import WebhookSink
from relay.errors import NotConnected
from relay.models import Record
from tests.backends.steps import Limits, numbers, opened, publish, within
from tests.backends.webhook.harness import WebhookHarness, numbered
from tests.services.http_receiver import HttpReceiver, Rule


@pytest.fixture
def harness(http_receiver: HttpReceiver) -> WebhookHarness:
    return WebhookHarness(http_receiver)


def outcome(harness: WebhookHarness, sent: list[Record], **overrides: Any) -> list[tuple[int, bool, str]]:
    """(index, permanent, code) of each failure."""
    with opened(harness, **overrides) as sink:
        return [(f.index, f.permanent, f.code) for f in publish(sink, sent)]


class TestWhatAReceiverGets:
    def test_an_id_and_a_time_in_the_headers(self, harness: WebhookHarness) -> None:
        assert outcome(harness, numbered(None, headers={"trace": "1"})) == []
        (seen,) = harness.requests()
        assert (seen.method, seen.target, seen.headers["content-type"]) == ("POST", harness.path, "application/json")
        assert seen.headers["webhook-id"] == seen.headers["idempotency-key"] == "orders:1"
        assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 60
        assert seen.headers["user-agent"].startswith("tide-relay/")
        assert "webhook-signature" not in seen.headers

    def test_signatures_that_another_reader_verifies_with_each_secret(self, harness: WebhookHarness) -> None:
        old, new = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain text"
        assert outcome(harness, numbered("ü", None), signing_secret=new, signing_secrets=[old]) == []
        for seen in harness.requests():
            assert Webhook(old).verify(seen.body, seen.headers) == json.loads(seen.body)
            assert Webhook(new.encode()).verify(seen.body, seen.headers) == json.loads(seen.body)

    @pytest.mark.parametrize(
        ("auth", "value"),
        [
            ({"type": "bearer", "token": "t0ken"}, "Bearer t0ken"),
            ({"type": "basic", "user": "zoë", "password": "p:w"}, "Basic em/DqzpwOnc="),
        ],
    )
    def test_credentials(self, harness: WebhookHarness, auth: dict[str, str], value: str) -> None:
        assert outcome(harness, numbered(None, headers={"Authorization": "forged"}), auth=auth) == []
        assert harness.requests()[0].headers["authorization"] == value

    def test_headers_of_a_message_cannot_frame_the_request_or_pose_as_ours(self, harness: WebhookHarness) -> None:
        headers = {"Content-Length": "3", "Transfer-Encoding": "chunked", "HOST": "evil", "Webhook-Id": "forged"}
        headers |= {"x-mine": "a\r\nx-injected: 1", "x-fixed": "message"}
        assert outcome(harness, numbered(None, headers=headers), headers={"X-Fixed": "config"}) == []
        (seen,) = harness.requests()
        assert seen.body == b'{"n": 1}'
        assert seen.headers["webhook-id"] == "orders:1"
        assert seen.headers["host"].startswith("127.0.0.1")
        assert (seen.headers["x-mine"], seen.headers["x-fixed"]) == ("a  x-injected: 1", "config")
        assert "x-injected" not in seen.headers

    def test_the_type_of_the_body_as_the_wire_format_says(self, harness: WebhookHarness) -> None:
        assert outcome(harness, numbered(None, headers={"content-type": "application/cloudevents+json"})) == []
        assert harness.requests()[0].headers["content-type"] == "application/cloudevents+json"

    def test_connections_are_used_again(self, harness: WebhookHarness) -> None:
        assert outcome(harness, numbered(*[None] * 20)) == []
        assert len({seen.connection for seen in harness.requests()}) == 1

    def test_a_header_that_http_cannot_carry_is_refused_for_good(self, harness: WebhookHarness) -> None:
        batch = numbered(None, None, None)
        batch[1] = batch[1]._replace(headers={"not a name": "1"})
        assert outcome(harness, batch) == [(1, True, "bad_header")]
        assert numbers(harness) == [1, 3]


class TestTheUrl:
    def test_is_a_template_in_which_values_are_encoded(self, harness: WebhookHarness) -> None:
        url = f"{harness.url}/{{outbox}}/{{key}}/{{outbox_id}}?type={{header.type}}&s={{subject}}"
        batch = numbered("a/../b?c#ü", headers={"type": "x&y=1"})
        assert outcome(harness, batch, url=url) == []
        expected = f"{harness.path}/orders/a%2F..%2Fb%3Fc%23%C3%BC/1?type=x%26y%3D1&s=orders"
        assert [seen.target for seen in harness.requests()] == [expected]

    @pytest.mark.parametrize("key", [None, "", ".", ".."])
    def test_a_message_that_would_go_elsewhere_is_refused_for_good(
        self, harness: WebhookHarness, key: str | None
    ) -> None:
        batch = [*numbered("a"), *numbered("x", key)[1:]]
        assert outcome(harness, batch, url=f"{harness.url}/{{key}}") == [(1, True, "bad_url")]
        assert len(harness.requests()) == 1


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 226])
    def test_from_200_to_299_are_a_delivery(self, harness: WebhookHarness, status: int) -> None:
        harness.rule(Rule(status=status))
        assert outcome(harness, numbered(None)) == []

    @pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 413, 422])
    def test_from_400_to_499_are_refusals_for_good_and_the_neighbours_arrive(
        self, harness: WebhookHarness, status: int
    ) -> None:
        harness.rule(Rule(status=status, contains='"n": 2'))
        assert outcome(harness, numbered(None, None, None)) == [(1, True, f"http_{status}")]
        assert numbers(harness) == [1, 3]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504])
    def test_that_may_be_others_later_hold_up_what_follows(self, harness: WebhookHarness, status: int) -> None:
        harness.rule(Rule(status=status, contains='"n": 2'))
        failures = outcome(harness, numbered(None, None, None))
        assert failures == [(1, False, f"http_{status}"), (2, False, "not_sent")]
        assert numbers(harness) == [1]

    def test_retry_on_makes_a_refusal_one_that_is_tried_again(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=401))
        assert outcome(harness, numbered(None), retry_on=[401]) == [(0, False, "http_401")]

    def test_redirects_are_not_followed(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=307, headers={"location": f"{harness.url}/elsewhere"}))
        assert outcome(harness, numbered(None)) == [(0, False, "redirect")]
        assert len(harness.requests()) == 1

    def test_may_ask_for_a_pause(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=503, headers={"retry-after": "17"}))
        with opened(harness) as sink:
            assert publish(sink, numbered(None))[0].retry_after_seconds == 17

    def test_are_quoted_in_the_reason_but_for_secrets_and_within_limits(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=400, body="we do\nnot like t0ken-of-ours " + "x" * 5000))
        with opened(harness, auth={"type": "bearer", "token": "t0ken-of-ours"}) as sink:
            (failure,) = publish(sink, numbered(None))
        assert "we do not like ***" in failure.reason
        assert len(failure.reason) < 1200

    @pytest.mark.parametrize(
        ("options", "sent"),
        [
            ({"auth": {"type": "bearer", "token": "t0ken-of-ours"}}, b"t0ken-of-ours"),
            ({"auth": {"type": "basic", "user": "kim", "password": "pa55word-of-ours"}}, b"kim:pa55word-of-ours"),
            ({"auth": {"type": "basic", "user": "kim", "password": "short"}}, b"kim:short"),
            ({"headers": {"X-Api-Key": "k3y-of-ours"}}, b"k3y-of-ours"),
        ],
    )
    def test_that_repeat_the_headers_show_no_secret(
        self, harness: WebhookHarness, options: dict[str, Any], sent: bytes
    ) -> None:
        shown = [sent.decode(), base64.b64encode(sent).decode(), sent.hex()]
        # Also where what is shown of an answer ends.
        places = [(filler, text) for filler in (0, 1010, 1018) for text in shown]
        harness.rule(*(Rule(status=400, body="." * filler + text + " end", times=1) for filler, text in places))
        with opened(harness, **options) as sink:
            reasons = [publish(sink, numbered(None))[0].reason for _ in places]
        for (_, text), reason in zip(places, reasons, strict=True):
            assert text[:5] not in reason.replace("kim:", "")

    def test_longer_than_anybody_reads_are_deliveries_too(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(body="x" * 1_000_000))
        assert outcome(harness, numbered(None, None)) == []
        assert numbers(harness) == [1, 2]
        # Neither answer was read to the end, so neither connection could be reused.
        assert len({seen.connection for seen in harness.requests()}) == 2

    def test_that_never_end_are_cut_off_by_the_time_limit(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(drip_ms=50, headers={"x": "y" * 1000}))
        with opened(harness, timeout_ms=400) as sink, pytest.raises(NotConnected) as caught:
            within(0.4 + Limits.moment_seconds, lambda: publish(sink, numbered(None)))
        assert caught.value.code == "timeout"

    def test_that_do_not_come_within_the_requests_own_limit_are_tried_again(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(delay_ms=2000, contains='"n": 2'))
        failures = outcome(harness, numbered(None, None, None), request_timeout_ms=100)
        assert failures == [(1, False, "timeout"), (2, False, "not_sent")]

    def test_none_at_all_is_a_lost_connection(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(hang_up=True, times=1))
        with opened(harness) as sink:
            with pytest.raises(NotConnected):
                publish(sink, numbered(None))
            assert publish(sink, numbered(None)) == []


class TestOrder:
    def test_records_of_a_key_follow_each_other_and_keys_go_side_by_side(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(delay_ms=3))
        keys = [f"k{number % 5}" for number in range(60)] + [None] * 10
        assert outcome(harness, numbered(*keys), max_in_flight=4) == []
        arrived = numbers(harness)
        assert sorted(arrived) == list(range(1, 71))
        for key in set(keys):
            of_key = [number for number in arrived if keys[number - 1] == key]
            assert of_key == sorted(of_key)
        assert max(seen.at_once for seen in harness.requests()) == 4

    def test_records_without_a_key_have_one_request_on_the_way(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(delay_ms=3))
        assert outcome(harness, numbered(*[None] * 10)) == []
        assert max(seen.at_once for seen in harness.requests()) == 1

    def test_after_a_failure_for_now_nothing_later_is_begun(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=503, contains='"n": 3}'), Rule(delay_ms=20))
        failures = outcome(harness, numbered(*"abcdabcdabcd"), max_in_flight=2)
        assert failures[0] == (2, False, "http_503")
        assert 3 not in numbers(harness)
        assert max(numbers(harness)) <= 5
        assert set(range(1, 3)) <= set(numbers(harness))

    def test_a_refusal_for_good_holds_up_nobody(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=400, contains='"n": 1}'))
        assert outcome(harness, numbered(*"aaabb")) == [(0, True, "http_400")]
        assert sorted(numbers(harness)) == [2, 3, 4, 5]


class TestArrays:
    def test_carry_many_records_in_order(self, harness: WebhookHarness) -> None:
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        assert outcome(harness, numbered("a", None, "b"), batch=True, signing_secret=secret) == []
        (seen,) = harness.requests()
        assert Webhook(secret).verify(seen.body, seen.headers) == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert seen.headers["webhook-id"] == "orders:1-3"

    def test_have_a_limit_which_a_single_record_may_exceed(self, harness: WebhookHarness) -> None:
        sizes = (400, 400, 400, 3000, 10)
        batch = [one._replace(body=b'"%s"' % (b"x" * sizes[one.id - 1])) for one in numbered(*[None] * 5)]
        assert outcome(harness, batch, batch=True, max_body_bytes=1024) == []
        assert [len(json.loads(seen.body)) for seen in harness.requests()] == [2, 1, 1, 1]

    def test_that_are_refused_give_up_only_the_record_to_blame(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=422, contains='"n": 3}'))
        assert outcome(harness, numbered(*[None] * 8), batch=True) == [(2, True, "http_422")]
        arrived = [one["n"] for seen in harness.accepted() for one in json.loads(seen.body)]
        assert arrived == [1, 2, 4, 5, 6, 7, 8]

    def test_that_are_refused_whatever_is_in_them_are_not_sent_in_pieces(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=403))
        assert {code for _, _, code in outcome(harness, numbered(None, None), batch=True)} == {"http_403"}
        assert len(harness.requests()) == 1

    def test_that_fail_for_now_hold_up_what_follows(self, harness: WebhookHarness) -> None:
        harness.rule(Rule(status=503, contains='"n": 2}'))
        batch = [one._replace(subject=f"s{one.id}") for one in numbered(None, None, None)]
        failures = outcome(harness, batch, batch=True, url=f"{harness.url}/{{subject}}")
        assert failures == [(1, False, "http_503"), (2, False, "not_sent")]

    def test_of_cloudevents_say_so(self, harness: WebhookHarness) -> None:
        batch = numbered(None, None, headers={"content-type": "application/cloudevents+json; charset=utf-8"})
        assert outcome(harness, batch, batch=True) == []
        assert harness.requests()[0].headers["content-type"] == "application/cloudevents-batch+json"

    def test_cannot_carry_events_whose_attributes_are_headers(self, harness: WebhookHarness) -> None:
        failures = outcome(harness, numbered(None, headers={"ce-id": "1"}), batch=True)
        assert failures == [(0, False, "bad_config")]
        assert harness.requests() == []


class TestThePrivateNetwork:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"])
    def test_is_out_of_reach_unless_allowed(self, harness: WebhookHarness, host: str) -> None:
        url = f"http://{host}:{harness.server.port}/secret"
        with pytest.raises(ValidationError, match="allow_private_network") as caught:
            harness.make_sink(url=url, allow_private_network=False)
        assert "secret" not in str(caught.value)
        assert harness.requests() == []

    def test_credentials_of_clouds_are_out_of_reach_always(self, harness: WebhookHarness) -> None:
        with pytest.raises(ValidationError, match=r"169\.254"):
            harness.make_sink(url="http://169.254.169.254/latest")

    def test_is_out_of_reach_for_a_name_that_dns_moves_there_later(
        self, harness: WebhookHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No real name server changes its answer on demand: the look-up is replaced, everything else is real.
        from relay.backends.webhook import network as webhook_network

        sink = harness.make_sink(url=f"http://name.test:{harness.server.port}/")
        monkeypatch.setattr(webhook_network, "look_up", lambda *_: ["127.0.0.1"])
        sink.open()
        monkeypatch.setattr(webhook_network, "look_up", lambda *_: ["169.254.169.254"])
        with pytest.raises(NotConnected) as caught:
            publish(sink, numbered(None))
        assert caught.value.code == "forbidden_address"
        sink.close()

    def test_proxies_of_the_environment_are_not_used(
        self, harness: WebhookHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert outcome(harness, numbered(None)) == []


def test_a_name_that_does_not_exist_is_tried_again(harness: WebhookHarness) -> None:
    with pytest.raises(NotConnected):
        within(10, harness.make_sink(url="http://unknown.invalid/", timeout_ms=5000).open)


def test_the_sink_is_the_one_of_the_table() -> None:
    assert sink_class("webhook") is WebhookSink
