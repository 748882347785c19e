"""`relay api`: what it stores, and what it answers."""

import json
from typing import Any

import pytest

from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web import hooks
from tests.web.api import SECRET, ApiProcess, make_hook, smuggled, stored
from tests.web.hooks import JSON, Hook

database, api, hook = hooks.database, hooks.api, hooks.hook


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


def test_a_request_that_ends_in_two_places_ends_its_connection(api: ApiProcess) -> None:
    answer = smuggled(api.port, "POST /hooks/none")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "bad_request"
