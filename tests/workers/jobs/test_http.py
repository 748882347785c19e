"""HTTP jobs: what a receiver gets, and what becomes of a job by its answer."""

import json
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from standardwebhooks import Webhook

from relay import reach
from relay.backends.common import addresses
from relay.backends.webhook.client import Outgoing, WebhookClient
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.errors import ERRORS
from relay.backends.webhook.url import parse_url
from relay.jobs.models import Ended
from relay.models import Failure
from relay.reach import Reach
from tests.backends.clients import differences
from tests.backends.webhook.test_tls import Certificates, certificates  # noqa: F401  a fixture
from tests.services.http_receiver import HttpReceiver, Request, Rule
from tests.workers.jobs.http_client import LOCAL, UUID, client, run


class Hook:
    """A path of the test's own."""

    def __init__(self, receiver: HttpReceiver) -> None:
        self._receiver = receiver
        self._path = f"/{uuid.uuid4().hex[:12]}"
        self.url = f"{receiver.url}{self._path}"

    def rule(self, rule: Rule) -> None:
        self._receiver.rule(self._path, rule)

    def requests(self) -> list[Request]:
        return self._receiver.requests(self._path)

    def send(self, headers: dict[str, Any] | None = None, keys: dict[str, Any] | None = None, **more: Any) -> Ended:
        return send(self.url, headers, keys, **more)


def send(url: str, headers: dict[str, Any] | None = None, keys: dict[str, Any] | None = None, **more: Any) -> Ended:
    async def sent() -> Ended:
        async with client(**keys or {}) as own:
            return await own.send(url, headers, **more)

    return run(sent())


@pytest.fixture
def hook(http_receiver: HttpReceiver) -> Hook:
    return Hook(http_receiver)


class TestWhatAReceiverGets:
    def test_the_request_as_it_was_enqueued_and_headers_to_know_it_by(self, hook: Hook) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        request = '"json": {"n": 1.00000000000000000001}, "method": "put"'
        ended = hook.send({"traceparent": trace, "X-Shop": "zoë"}, request=request, trace_id="t-1")
        assert ended == Ended("s", response_status=200)
        (seen,) = hook.requests()
        assert (seen.method, seen.body) == ("PUT", b'{"n": 1.00000000000000000001}')
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["idempotency-key"] == seen.headers["webhook-id"] == UUID
        assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 60
        ours = {
            name.removeprefix("x-pgrelay-"): value
            for name, value in seen.headers.items()
            if name.startswith("x-pgrelay-")
        }
        assert ours == {"job-id": UUID, "attempt": "3", "trace-id": "t-1"}
        assert (seen.headers["traceparent"], seen.headers["x-shop"]) == (trace, "zoë")
        assert seen.headers["user-agent"].startswith("tide-relay/")
        assert "webhook-signature" not in seen.headers

    def test_signatures_that_another_reader_verifies_with_each_secret(self, hook: Hook) -> None:
        old, new = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain text"
        keys = {"signing_secret": new, "signing_secrets": [old]}
        assert hook.send(keys=keys, idempotency_key="order:42").outcome == "s"
        (seen,) = hook.requests()
        assert seen.headers["webhook-id"] == "order:42"
        assert Webhook(old).verify(seen.body, seen.headers) == {"n": 1}
        assert Webhook(new.encode()).verify(seen.body, seen.headers) == {"n": 1}

    def test_headers_of_the_queue_and_no_others_of_those_names(self, hook: Hook) -> None:
        keys = {"hosts": ["127.0.0.1"], "headers": {"X-Key": "ours"}, "auth": {"type": "bearer", "token": "t0ken"}}
        assert hook.send({"x-key": "theirs", "authorization": "theirs", "x-other": "theirs"}, keys).outcome == "s"
        headers = hook.requests()[0].headers
        assert [headers[name] for name in ("x-key", "authorization", "x-other")] == ["ours", "Bearer t0ken", "theirs"]

    def test_no_text_of_a_job_begins_another_header(self, hook: Hook) -> None:
        evil = "a\r\nx-injected: 1\r\n\r\nGET /"
        url = f"{hook.url}/{evil}"
        assert send(url, idempotency_key=evil + "é%", trace_id=evil).outcome == "s"
        assert send(hook.url, {"x-mine": evil}).code == "bad_header"
        (seen,) = hook.requests()
        assert seen.target.endswith("/a%0D%0Ax-injected:%201%0D%0A%0D%0AGET%20/")
        assert seen.headers["idempotency-key"] == "a%0D%0Ax-injected:%201%0D%0A%0D%0AGET%20/%C3%A9%25"
        assert seen.headers["x-pgrelay-trace-id"] == "a  x-injected: 1    GET /"
        assert "x-injected" not in seen.headers

    @pytest.mark.parametrize(
        ("request_", "method", "body", "content_type"),
        [
            ('"method": "GET"', "GET", b"", None),
            ('"method": "HEAD"', "HEAD", b"", None),
            ('"method": "POST"', "POST", b"", None),
            ('"text": "é"', "POST", "é".encode(), "text/plain; charset=utf-8"),
            ('"base64": "AP8="', "POST", b"\0\xff", "application/octet-stream"),
        ],
    )
    def test_bodies_of_every_kind(
        self, hook: Hook, request_: str, method: str, body: bytes, content_type: str | None
    ) -> None:
        if method == "HEAD":
            hook.rule(Rule(status=204))  # the receiver knows no answer without a body but this one
        assert hook.send(request=request_).outcome == "s"
        (seen,) = hook.requests()
        assert (seen.method, seen.body, seen.headers.get("content-type")) == (method, body, content_type)
        assert ("content-length" in seen.headers) == (method == "POST")


class TestWhereARequestGoes:
    def test_not_to_private_addresses_unless_the_queue_says_so(self, hook: Hook) -> None:
        by_name = hook.url.replace("127.0.0.1", "localhost")
        for url in (hook.url, by_name):
            ended = send(url, keys={"allow_private_network": False})
            assert (ended.outcome, ended.code) == ("r", "forbidden_address")
            assert ended.error is not None
            assert "set allow_private_network" in ended.error
        assert hook.requests() == []
        assert send(by_name).outcome == "s"

    def test_not_to_where_dns_moves_a_name_and_to_the_address_that_was_judged(
        self, hook: Hook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No real name server changes its answer on demand: the system's look-up is replaced, everything else is real.
        answers = ["127.0.0.1", "169.254.169.254"]

        def look_up(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), 0))]

        monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)
        url = hook.url.replace("127.0.0.1", "name.test")
        assert send(url).outcome == "s"
        ended = send(url)
        assert (ended.outcome, ended.code, answers) == ("r", "forbidden_address", [])
        assert len(hook.requests()) == 1

    @pytest.mark.parametrize("where", ["the process", "the queue"])
    def test_only_to_hosts_of_the_allow_lists(self, hook: Hook, where: str) -> None:
        def outcome(*hosts: str) -> tuple[str, str | None]:
            if where == "the process":
                reach.put_in_force(Reach(job_http_hosts=hosts))
            ended = send(hook.url, keys={"hosts": list(hosts)} if where == "the queue" else {})
            return ended.outcome, ended.code

        assert outcome("127.0.0.2", "*.a.test") == ("d", "forbidden_host")
        assert hook.requests() == []
        assert outcome("127.0.0.1") == ("s", None)

    def test_not_in_the_clear_unless_the_queue_says_so(self, hook: Hook) -> None:
        ended = send(hook.url, keys={"allow_http": False})
        assert (ended.outcome, ended.code, hook.requests()) == ("d", "bad_url", [])

    def test_not_where_a_redirect_leads(self, hook: Hook) -> None:
        hook.rule(Rule(status=307, headers={"location": f"{hook.url}/elsewhere"}))
        ended = hook.send()
        assert (ended.code, ended.response_status) == ("redirect", 307)
        assert ended.error is not None
        assert "redirects are not followed" in ended.error
        assert len(hook.requests()) == 1

    def test_a_body_longer_than_the_queue_allows_goes_nowhere(self, hook: Hook) -> None:
        ended = send(hook.url, keys={"max_body_bytes": 7})
        assert (ended.outcome, ended.code, hook.requests()) == ("d", "too_large", [])


class TestTheRulesAreThoseOfTheWebhookSink:
    """The same receiver does the same to both; both say the same of it."""

    @pytest.mark.parametrize(
        "rule",
        [
            *(Rule(status=status) for status in (200, 204, 304, 307, 400, 401, 404, 409, 410, 413, 422)),
            *(Rule(status=status, headers={"retry-after": "17"}) for status in (404, 408, 425, 429, 500, 503)),
            Rule(status=503, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}),
            Rule(status=503, headers={"Retry-After": "soon"}),
            Rule(hang_up=True),
            Rule(delay_ms=60_000),
        ],
        ids=str,
    )
    def test_of_answers(self, hook: Hook, rule: Rule) -> None:
        hook.rule(rule)
        seconds = 0.2 if rule.delay_ms else 30.0
        keys = {"retry_on": [410]}
        assert verdict(send(hook.url, keys=keys, seconds=seconds)) == of_the_sink(hook.url, keys, seconds)
        assert len(hook.requests()) == 2

    def test_of_connections(self, hook: Hook, unused_port: int) -> None:
        refused = f"http://127.0.0.1:{unused_port}/"
        private = {"allow_private_network": False}
        for url, keys in ((refused, {}), ("http://unknown.invalid/", {}), (hook.url, private),
                          ("http://169.254.169.254/", {})):  # fmt: skip
            assert verdict(send(url, keys=keys)) == of_the_sink(url, keys), url

    def test_of_certificates(
        self,
        certificates: Certificates,  # noqa: F811
        own_http_receiver: Callable[..., HttpReceiver],
    ) -> None:
        receiver = own_http_receiver(tls=certificates.sign("server", "IP:127.0.0.1"))
        trusting = {"tls_ca": str(certificates.ca)}
        assert verdict(send(receiver.url, keys=trusting)) == of_the_sink(receiver.url, trusting) is None
        assert verdict(send(receiver.url)) == of_the_sink(receiver.url, {}) == (False, "tls", None)
        by_name = receiver.url.replace("127.0.0.1", "localhost")
        assert verdict(send(by_name, keys=trusting)) == of_the_sink(by_name, trusting) == (False, "tls", None)

    def test_of_every_exception_of_the_protocol(self) -> None:
        import h11._util
        import httpcore

        assert differences(ERRORS, h11._util, "h11") == set()
        for name in ("LocalProtocolError", "RemoteProtocolError"):
            assert ERRORS.verdict(getattr(h11, name)("x")) == ERRORS.verdict(getattr(httpcore, name)("x"))


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


Verdict = tuple[bool, str | None, float | None]


def verdict(ended: Ended) -> Verdict | None:
    """Permanent, code, when to retry."""
    return None if ended.outcome == "s" else (ended.outcome == "d", ended.code, ended.retry_seconds)


def of_the_sink(url: str, keys: dict[str, Any], seconds: float = 30) -> Verdict | None:
    origin, target = parse_url(url)
    # A configuration would refuse some of the addresses: the client decides of those that a name leads to.
    config = WebhookSinkConfig.model_validate(LOCAL | {"url": "http://receiver.test/"} | keys)
    with closing(WebhookClient(config, origin, "here")) as sink:
        failure: Failure | None = sink.send(Outgoing("o:1", target, b"{}", {}, 0), time.monotonic() + seconds)
    return None if failure is None else (failure.permanent, failure.code, failure.retry_after_seconds)


class TestWhatIsKeptOfAnAnswer:
    def test_its_beginning_without_secrets(self, hook: Hook) -> None:
        hook.rule(Rule(status=401, body="not t0ken-of-ours " + "é" * 3000))
        keys = {"hosts": ["127.0.0.1"], "auth": {"type": "bearer", "token": "t0ken-of-ours"}}
        ended = hook.send(keys=keys)
        assert (ended.outcome, ended.code, ended.error) == ("d", "http_401", "answered 401 Unauthorized")
        assert ended.preview is not None
        assert ended.preview.startswith("not *** éé")
        assert 1900 < len(ended.preview.encode()) <= 2000

    def test_no_half_of_a_secret_where_it_is_cut(self, hook: Hook) -> None:
        token = "t0ken-of-ours-" * 4
        hook.rule(Rule(body="x" * 1000 + token * 100))
        ended = hook.send(keys={"hosts": ["127.0.0.1"], "auth": {"type": "bearer", "token": token}})
        assert ended.preview is not None
        assert "t0ken" not in ended.preview
        assert ended.preview.startswith("x" * 100)


def test_a_payload_that_cannot_be_sent_is_dead_at_once_and_the_text_says_why() -> None:
    ended = send("https://a.test/", request='"colour": "red"')
    assert (ended.outcome, ended.code) == ("d", "bad_payload")
    assert json.dumps(ended.error) == "\"payload: unknown key 'colour'; known: url, method, json, text, base64\""
