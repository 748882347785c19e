"""`relay api`: what it stores, and what it answers."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until
from tests.web.api import SECRET, ApiProcess, make_hook, running_api, signed, stored

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    # So long that nothing but a notification tells of a change.
    with running_api(database, tmp_path_factory.mktemp("api"), RELAY_DISCOVERY_INTERVAL="1h") as running:
        yield running


Hook = Callable[..., str]


@pytest.fixture
def hook(api: ApiProcess, database: Database, request: pytest.FixtureRequest) -> Hook:
    """Makes a pipeline with these keys that is known to the API; gives its name, which is its inbox's too."""

    def make(**config: Any) -> str:
        name = f"h{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
        make_hook(database, name, **config)
        api.wait_for(config.get("path") or name)
        return name

    return make


def known_as(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def test_a_genuine_message_is_a_row_when_it_is_answered(api: ApiProcess, database: Database, hook: Hook) -> None:
    name = hook()
    body = '{"ü": [1, 12345678901234567890123.5], "n": null}'.encode()
    traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    others: dict[str, Any] = {"authorization": "Bearer x", "cookie": "c", "x-mine": "Zoë".encode()}
    answer = api.send(name, "msg_1", body, traced | others)
    assert (answer.status, answer.body) == (200, {"id": "msg_1", "known": False})
    with database.connect() as connection:
        [row] = connection.execute(
            f"select event_id, payload::text, headers, source, trace_id, processed_at from tide.{name}"
        ).fetchall()
    event_id, payload, headers, source, trace_id, processed_at = row
    assert (event_id, source, processed_at) == ("msg_1", name, None)
    assert payload == '{"n": null, "ü": [1, 12345678901234567890123.5]}'
    assert trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert headers["x-mine"] == "Zoë"
    assert headers["webhook-id"] == "msg_1"
    assert not {"authorization", "cookie", "webhook-signature", "host", "content-length"} & headers.keys()


class TestRepetitions:
    def test_are_stored_once_and_welcome(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook()
        assert [api.send(name, "a").body["known"] for _ in range(3)] == [False, True, True]
        assert api.send(name, "a", b'{ "n" : 1 }').status == 200
        assert stored(database, name) == {"a": {"n": 1}}

    def test_with_another_body_are_a_conflict(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook()
        assert api.send(name, "a").status == 200
        assert api.send(name, "a", b'{"n": 2}').status == 409
        assert stored(database, name) == {"a": {"n": 1}}


class TestTheSender:
    def test_without_a_good_signature_is_refused_and_told_nothing(
        self, api: ApiProcess, database: Database, hook: Hook
    ) -> None:
        name = hook()
        body = b'{"n": 1}'
        for headers in (
            JSON,
            signed("a", body, secret="whsec_b3RoZXI="),
            signed("a", b'{"n": 2}'),
            signed("a", body) | {"webhook-id": "b"},
            signed("a", body, seconds=time.time() - 600),
            signed("a", body, seconds=time.time() + 600),
        ):
            answer = api.post(name, body, headers)
            assert (answer.status, answer.body) == (401, {"error": "unauthorized"})
        assert stored(database, name) == {}

    def test_may_sign_with_either_secret_while_one_replaces_the_other(self, api: ApiProcess, hook: Hook) -> None:
        name = hook(signing_secrets=["whsec_b3RoZXI=", "another"])
        for number, secret in enumerate([SECRET, "whsec_b3RoZXI=", "another"]):
            assert api.post(name, b"{}", signed(f"m{number}", b"{}", secret=secret)).status == 200

    def test_may_use_the_standard_package(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name, body = hook(), '{"test": "ü"}'
        now = datetime.now(UTC)
        headers = JSON | {
            "webhook-id": "msg_2",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(SECRET).sign("msg_2", now, body),
        }
        assert api.post(name, body.encode(), headers).status == 200
        assert list(stored(database, name)) == ["msg_2"]

    def test_may_use_the_older_names_of_the_headers(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(event_id="{id}/{header.webhook-id}")
        headers = {header.replace("webhook-", "svix-"): value for header, value in signed("msg_3", b"{}").items()}
        assert api.post(name, b"{}", headers).status == 200
        # What is not signed changes nothing: neither another id, nor the name that the signed one has here.
        assert api.post(name, b"{}", headers | {"webhook-id": "msg_4"}).body["known"]
        assert api.post(name, b"{}", signed("msg_3", b"{}") | {"svix-id": "msg_5"}).body["known"]
        assert list(stored(database, name)) == ["msg_3/msg_3"]
        with database.connect() as connection:
            [(kept,)] = connection.execute(f'select headers from tide."{name}"').fetchall()
        assert (kept["svix-id"], kept["webhook-id"]) == ("msg_3", "msg_3")
        assert not {"svix-signature", "webhook-signature"} & kept.keys()

    def test_may_be_github(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(scheme="github")
        body = b'{"action": "opened"}'
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = JSON | {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": "72d3162e-cc78-11e3"}
        assert api.post(name, body, headers | {"X-GitHub-Event": "issues"}).status == 200
        assert stored(database, name) == {known_as(body): {"action": "opened"}}

    def test_may_be_stripe_whose_repetitions_differ(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(scheme="stripe")
        for pending in (2, 1):
            body = b'{"id": "evt_1", "pending_webhooks": %d}' % pending
            seconds = int(time.time())
            digest = hmac.new(SECRET.encode(), b"%d." % seconds + body, hashlib.sha256).hexdigest()
            headers = {
                "content-type": "application/json; charset=utf-8",
                "stripe-signature": f"t={seconds},v1={digest}",
            }
            assert api.post(name, body, headers).status == 200
        assert stored(database, name) == {"evt_1": {"id": "evt_1", "pending_webhooks": 2}}

    def test_may_sign_in_a_header_of_its_own(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(scheme="hmac", signature_header="X-Shop-Hmac", idempotency_header="X-Shop-Id")
        digest = hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()
        assert api.post(name, b"{}", JSON | {"x-shop-hmac": digest, "x-shop-id": "s1"}).status == 200
        assert list(stored(database, name)) == ["s1"]

    def test_may_have_a_token(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(scheme="bearer", signing_secret="t0ken")
        assert api.post(name, b"{}", JSON | {"authorization": "Bearer other", "idempotency-key": "b1"}).status == 401
        assert api.post(name, b"{}", JSON | {"authorization": "Bearer t0ken", "idempotency-key": "b1"}).status == 200
        assert list(stored(database, name)) == [known_as(b"{}")]


EVENT = {"specversion": "1.0", "id": "evt_1", "source": "/shop", "type": "order"}
IN_HEADERS = {"ce-specversion": "1.0", "ce-source": "/shop", "ce-type": "order"}


class TestARecordedRequest:
    """Sent again with the same body and signature; all else can be chosen."""

    @pytest.mark.parametrize("scheme", ["hmac", "github", "bearer", "standard"])
    @pytest.mark.parametrize(
        ("config", "body", "headers"),
        [
            ({}, b'{"n": 1}', {}),
            ({"event_id": "$.n.id"}, b'{"n": {"id": "n1"}}', {}),
            ({"wire_format": "cloudevents"}, b'{"n": 1}', IN_HEADERS | {"ce-id": "evt_1"}),
            (
                {"wire_format": "cloudevents"},
                json.dumps(EVENT).encode(),
                {"content-type": "application/cloudevents+json"},
            ),
            ({"wire_format": "debezium"}, b'{"n": 1}', {"id": "d1"}),
            ({"wire_format": "debezium"}, b'{"id": "d1", "payload": {"n": 1}}', {}),
        ],
    )
    def test_is_stored_once_whatever_its_headers_say(
        self, api: ApiProcess, database: Database, hook: Hook,
        scheme: str, config: dict[str, str], body: bytes, headers: dict[str, str],
    ) -> None:  # fmt: skip
        name = hook(scheme=scheme, **config)
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        proof = signed("m1", body) if scheme == "standard" else JSON
        proof |= {
            "hmac": {"x-signature-256": digest},
            "github": {"x-hub-signature-256": f"sha256={digest}"},
            "bearer": {"authorization": f"Bearer {SECRET}"},
        }.get(scheme, {})
        assert api.post(name, body, proof | headers).body["known"] is False
        other_ids = dict.fromkeys(("idempotency-key", "x-github-delivery", "id", "ce-id", "relay-id", "ce_id"), "other")
        for again in (headers | other_ids, IN_HEADERS | other_ids, other_ids | {"content-type": "application/json"}):
            answer = api.post(name, body, proof | again)
            # Or refused, where the headers no longer go with the body.
            assert answer.status in (400, 409) or answer.body["known"] is True, answer
        assert len(stored(database, name)) == 1


class TestWhatCannotBeStored:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "not_json"),
            (b"{", "refused"),
            (b"hello", "refused"),
            (b"\xff", "not_utf8"),
            (b'"\\u0000"', "refused"),
            (b"[" * 100_000, "refused"),
        ],
    )
    def test_is_refused_with_a_reason(
        self, api: ApiProcess, database: Database, hook: Hook, body: bytes, code: str
    ) -> None:
        name = hook()
        answer = api.send(name, "a", body)
        assert (answer.status, answer.body["error"]) == (400, code)
        assert answer.body["detail"]
        assert stored(database, name) == {}

    def test_for_want_of_an_id_says_which_header_is_missing(self, api: ApiProcess, hook: Hook) -> None:
        name = hook(scheme="bearer", signing_secret="t0ken", idempotency_header="Idempotency-Key")
        answer = api.post(name, b"{}", JSON | {"authorization": "Bearer t0ken"})
        assert (answer.status, answer.body["error"]) == (400, "bad_event_id")
        assert "idempotency-key" in answer.body["detail"]

    def test_unless_the_id_is_in_the_body(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(scheme="bearer", signing_secret="t0ken", event_id="$.order.id", event_type="order.{type}")
        body = b'{"order": {"id": "o-1"}}'
        assert api.post(name, body, JSON | {"authorization": "Bearer t0ken", "type": "paid"}).status == 200
        assert list(stored(database, name)) == ["o-1"]

    def test_may_be_of_another_type(self, api: ApiProcess, hook: Hook) -> None:
        name = hook()
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert api.send(name, "a", headers={"content-type": kind}).status == 415
        assert api.send(name, "a", headers={"content-encoding": "gzip"}).status == 415
        assert api.send(name, "a", headers={"content-type": "application/vnd.x+json; charset=utf-8"}).status == 200

    def test_may_be_a_cloudevent(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(wire_format="cloudevents")
        body = json.dumps({"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": {"a": 1}}).encode()
        answer = api.send(name, "ignored", body, {"content-type": "application/cloudevents+json"})
        assert answer.status == 200, answer.body
        [stored_id] = stored(database, name)
        assert "e1" in stored_id


class TestLimits:
    def test_a_body_may_be_as_long_as_it_may_be(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(max_body_bytes=2_000_000)
        assert api.send(name, "fits", b'"' + b"x" * 1_999_998 + b'"').status == 200
        assert api.send(name, "is too long", b'"' + b"x" * 1_999_999 + b'"').status == 413
        assert list(stored(database, name)) == ["fits"]

    def test_an_answer_that_comes_early_lets_the_sender_finish(self, api: ApiProcess, hook: Hook) -> None:
        name = hook(max_body_bytes=10_000)
        with api.begun(name, "content-length: 2000000") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
            for _ in range(20):
                connection.sendall(b"x" * 100_000)
            while connection.recv(10_000):
                pass

    def test_reading_stops_at_the_limit_whatever_the_length_was_said_to_be(self, api: ApiProcess, hook: Hook) -> None:
        name = hook(max_body_bytes=10_000)
        with api.begun(name, "transfer-encoding: chunked") as connection:
            sent = 0
            try:
                while sent < 50_000_000:
                    connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
                    sent += 0x1000
            except OSError:
                pass
        assert sent < 20_000_000
        with api.begun(name, "content-length: 99999999999") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_more_requests_a_second_than_allowed_are_sent_away_for_a_moment(
        self, api: ApiProcess, database: Database, hook: Hook
    ) -> None:
        name = hook(rate_limit=0.5)
        assert api.send(name, "a").status == 200
        answer = api.send(name, "b")
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert list(stored(database, name)) == ["a"]


class TestPaths:
    def test_that_nobody_has_are_not_found(self, api: ApiProcess) -> None:
        for path in ("nothing", "", "../health", "a/b"):
            assert api.post(path, b"{}", JSON).status == 404

    def test_may_be_chosen(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook(path="shop/orders.v1")
        assert api.send("shop/orders.v1", "a").status == 200
        assert api.send(name, "a").status == 404
        assert list(stored(database, name)) == ["a"]

    def test_take_posts_only(self, api: ApiProcess, hook: Hook) -> None:
        assert api.get(f"/hooks/{hook()}").status == 405


class TestChanges:
    def test_take_effect_by_themselves(self, api: ApiProcess, database: Database, hook: Hook) -> None:
        name = hook()
        with database.connect() as connection:
            connection.execute("select tide.relay_disable(%s)", [name])
            answer = wait_until(lambda: (a := api.send(name, "a")).status == 503 and a)
            assert answer.headers["retry-after"] == "60"
            connection.execute("select tide.relay_enable(%s)", [name])
            wait_until(lambda: api.send(name, "a").status == 200)
            make_hook(database, name, inbox=name, signing_secret="whsec_b3RoZXI=")
            wait_until(lambda: api.send(name, "b").status == 401)
            connection.execute("select tide.relay_delete(%s)", [name])
            wait_until(lambda: api.send(name, "b").status == 404)

    def test_that_are_wrong_make_a_pipeline_unavailable_and_nothing_else(
        self, api: ApiProcess, database: Database, hook: Hook
    ) -> None:
        name = hook()
        make_hook(database, f"{name}x", inbox=name, scheme="nothing")
        wait_until(lambda: api.send(f"{name}x", "a").status == 503)
        assert api.send(name, "a").status == 200
        assert "scheme" in api.log.read_text()


class TestWhatMachinesAsk:
    def test_health_and_readiness(self, api: ApiProcess) -> None:
        assert api.get("/ready").body == {"ready": True}
        assert api.get("/health").body["status"] == "healthy"
        for path in ("/ready", "/health"):
            assert api.get(path, api.metrics_port).status == 200

    def test_metrics_are_not_for_the_world(self, api: ApiProcess, hook: Hook) -> None:
        name = hook()
        assert api.send(name, "a").status == 200
        assert api.get("/metrics").status == 404
        text = api.get("/metrics", api.metrics_port).body.decode()
        assert f'tide_relay_api_messages_total{{pipeline="{name}",state="stored"}} 1.0' in text
        assert f'tide_relay_api_requests_total{{pipeline="{name}",status="200"}} 1.0' in text

    def test_no_secret_is_in_the_log(self, api: ApiProcess) -> None:
        assert SECRET not in api.log.read_text()
