"""`relay api`: who sent a message, under each scheme."""

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from tests.services.postgres import Database
from tests.web import hooks
from tests.web.api import SECRET, ApiProcess, signed, stored
from tests.web.hooks import JSON, Hook, known_as

database, api, hook = hooks.database, hooks.api, hooks.hook


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
