"""The admin API as a process: what PgRelay's admin API promised, answered after the commit."""

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.local.server_process import free_port
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until
from tests.web.admin import READ_ONLY, TOKEN, Admin, started
from tests.web.api import running_api, smuggled


@pytest.fixture(scope="module")
def database(_postgres18: PostgresServer) -> Iterator[Database]:
    _postgres18.start()
    made = _postgres18.create_database()
    yield made
    _postgres18.drop_database(made)


@pytest.fixture(scope="module")
def serving(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with started(database, tmp_path_factory.mktemp("admin")) as (_, admin):
        yield admin


@pytest.fixture
def admin(serving: Admin) -> Admin:
    """With one queue that is new."""
    with serving.database.connect() as connection:
        connection.execute("select tide.job_queue_drop(q.name, force => true) from tide.job_queue q")
        connection.execute("delete from tide.job_worker")
        connection.execute("select tide.job_queue_create('mail')")
    return serving


def test_the_examples_of_the_reference(admin: Admin) -> None:
    assert admin.ask("GET", "/healthz", token=None) == (200, {"status": "ok"})
    assert admin.ask("GET", "/readyz", token=None) == (200, {"status": "ready", "database": "ok"})
    assert admin.get("/v1/jobs") == {"items": [], "total": None, "limit": 50, "offset": 0, "next_cursor": None}
    made = admin.enqueue(payload={"order_id": "42"})
    page = admin.get("/v1/jobs?status=pending&limit=25")
    assert [item["id"] for item in page["items"]] == [made["job_id"]]
    assert page["limit"] == 25
    assert "payload" not in page["items"][0]
    paths = admin.ask("GET", "/openapi.json", token=None).body["paths"]
    assert {"/v1/jobs", "/v1/jobs/{job_id}/attempts", "/v1/queues/{queue_name}/pause", "/v1/workers"} <= set(paths)


def test_no_page_loads_anything_from_elsewhere(admin: Admin) -> None:
    assert admin.ask("GET", "/docs", token=None).status == 404
    assert admin.ask("GET", "/redoc", token=None).status == 404


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_that_is_not_called_json_is_told_what_to_send(admin: Admin, kind: str | None) -> None:
    body = json.dumps({"queue_name": "mail", "kind": "handler", "name": "send"}).encode()
    made = admin.enqueue()["job_id"]
    for path in ("/v1/jobs", "/v1/jobs/cancel", f"/v1/jobs/{made}/replay"):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin.port, timeout=20)) as connection:
            headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Content-Type": kind} if kind else {})
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            error = json.loads(answer.read())["error"]
        assert (answer.status, error["code"]) == (422, "validation_error")
        assert error["message"] == "Send the body as JSON, with the header Content-Type: application/json."
        assert error["details"]["errors"]


def test_a_request_that_ends_in_two_places_ends_its_connection(admin: Admin) -> None:
    answer = smuggled(admin.port, "POST /v1/jobs")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_only_who_has_a_token_is_answered_and_a_read_only_one_changes_nothing(admin: Admin) -> None:
    for path in ("/v1/jobs", "/v1/queues", "/v1/stats", "/v1/workers"):
        for token in (None, "", "x", TOKEN[:-1], TOKEN + "x", "Bearer"):
            reply = admin.ask("GET", path, token=token)
            assert (reply.status, reply.body["error"]["code"]) == (401, "unauthorized")
        assert admin.ask("GET", path, token=READ_ONLY).status == 200
    for method, path in (
        ("POST", "/v1/jobs"),
        ("PUT", "/v1/queues/x"),
        ("DELETE", "/v1/queues/mail"),
        ("POST", "/v1/jobs/replay"),
    ):
        reply = admin.ask(method, path, {}, token=READ_ONLY)
        assert (reply.status, reply.body["error"]["code"]) == (403, "forbidden")
    assert [queue["name"] for queue in admin.get("/v1/queues")] == ["mail"]


def test_what_was_answered_is_there(admin: Admin) -> None:
    for number in range(300):
        made = admin.enqueue(payload={"n": number})
        assert made["created"]
        assert made["status"] == "pending"
        read = admin.get(f"/v1/jobs/{made['job_id']}")
        assert read["payload"] == {"n": number}
        assert (read["kind"], read["queue_name"], read["attempt_count"]) == ("handler", "mail", 0)


def test_numbers_keep_every_digit_both_ways(admin: Admin) -> None:
    small = f"0.{'0' * 399}1"
    payload = f'{{"a": 1.10, "b": [{{"c": 12345678901234.5678901}}, {small}, "é"], "d": {{}}, "e": [], "f": null}}'
    job = '"queue_name": "mail", "kind": "handler", "name": "send", "priority": 1.0'
    others = '"metadata": {"n": 1.10}, "headers": {"h": [2.50]}'
    reply = admin.ask("POST", "/v1/jobs", raw=f'{{{job}, {others}, "payload": {payload}}}'.encode())
    assert reply.status == 201, reply
    path = f"http://127.0.0.1:{admin.port}/v1/jobs/{reply.body['job_id']}"
    request = urllib.request.Request(path, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as response:
        read = json.loads(response.read(), parse_float=str)
    assert read["payload"] == json.loads(payload, parse_float=str)
    assert (read["headers"], read["metadata"], read["priority"]) == ({"h": ["2.50"]}, {"n": "1.10"}, 1)
    with admin.database.connect() as connection:
        stored = "select payload::text from tide.job where metadata ? 'n'"
        assert connection.execute(stored.encode()).fetchall() == [(payload,)]


def test_a_key_that_is_used_again_is_the_first_job_or_a_conflict_that_names_it(admin: Admin) -> None:
    first = admin.enqueue(payload={"a": 1}, idempotency_key="k")
    again = admin.ask(
        "POST",
        "/v1/jobs",
        {"queue_name": "mail", "kind": "handler", "name": "send", "payload": {"a": 1}, "idempotency_key": "k"},
    )
    assert again.status == 200
    assert again.body | {"created": True} == first
    other = admin.ask(
        "POST",
        "/v1/jobs",
        {"queue_name": "mail", "kind": "handler", "name": "send", "payload": {"a": 2}, "idempotency_key": "k"},
    )
    assert other.status == 409
    assert first["job_id"] in other.body["error"]["message"]


def test_pages_by_cursor_and_by_offset(admin: Admin) -> None:
    made = [admin.enqueue(payload={"n": number})["job_id"] for number in range(7)][::-1]
    seen, cursor = [], ""
    while True:
        page = admin.get(f"/v1/jobs?limit=3{cursor}")
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made
    page = admin.get("/v1/jobs?limit=2&offset=3&status=pending&include_total=true")
    assert [item["id"] for item in page["items"]] == made[3:5]
    assert page["total"] == 7


def test_attempts_replay_and_cancel(admin: Admin) -> None:
    dead = admin.enqueue(payload={"a": 1}, idempotency_key="k")["job_id"]
    admin.end(1, "d", "ValueError", "no such order")
    waiting = admin.enqueue()["job_id"]
    [attempt] = admin.get(f"/v1/jobs/{dead}/attempts")
    assert (attempt["attempt_number"], attempt["status"], attempt["error_type"]) == (1, "failed", "ValueError")
    assert admin.get(f"/v1/jobs/{dead}")["status"] == "dead_letter"
    replies = [admin.ask("POST", f"/v1/jobs/{dead}/replay", {}) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 201]
    copy = admin.get(f"/v1/jobs/{replies[0].body['new_job_id']}")
    assert (copy["status"], copy["payload"], copy["idempotency_key"]) == ("pending", {"a": 1}, "k")
    cancelled = admin.ask("POST", f"/v1/jobs/{waiting}/cancel")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    twice = admin.ask("POST", f"/v1/jobs/{waiting}/cancel")
    assert (twice.status, twice.body["error"]["code"]) == (409, "job_state_conflict")
    assert admin.ask("POST", "/v1/jobs/cancel", {"queue_name": "mail"}).body == {"jobs": 2, "more": False}
    assert admin.ask("POST", "/v1/jobs/replay", {"queue_name": "mail", "status": "cancelled"}).body["jobs"] == 3
    assert admin.ask("POST", "/v1/jobs/replay", {}).status == 422


def test_queues(admin: Admin) -> None:
    assert admin.ask("PUT", "/v1/queues/imports", {"concurrency_limit": 3, "paused": True}).status == 201
    changed = admin.ask("PUT", "/v1/queues/imports", {"key_limit": 1})
    assert (changed.status, changed.body["concurrency_limit"], changed.body["key_limit"]) == (200, 3, 1)
    assert changed.body["paused"] is True
    assert admin.ask("PUT", "/v1/queues/imports", {"concurrency_limit": None}).body["concurrency_limit"] is None
    assert admin.ask("POST", "/v1/queues/imports/resume").body["paused"] is False
    assert admin.ask("POST", "/v1/queues/imports/pause").body["paused"] is True
    assert admin.ask("POST", "/v1/queues/nowhere/pause").body["error"]["code"] == "queue_not_found"
    admin.enqueue()
    assert admin.ask("DELETE", "/v1/queues/mail").status == 409
    assert admin.ask("DELETE", "/v1/queues/mail?force=true").status == 204
    assert [queue["name"] for queue in admin.get("/v1/queues")] == ["imports"]
    assert admin.ask("PUT", "/v1/queues/bad%20name", {}).status == 422


def test_stats_and_workers(admin: Admin) -> None:
    for _ in range(3):
        admin.enqueue()
    admin.end(1, "d")
    stats = admin.get("/v1/stats")
    assert stats["counts"] == {"pending": 2, "leased": 0, "dead_letter": 1}
    assert {"queue_name": "mail", "status": "pending", "count": 2} in stats["queue_depth"]
    assert stats["oldest_pending_age_seconds"] >= 0
    [worker] = admin.get("/v1/workers")
    assert (worker["hostname"], worker["queues"], worker["alive"]) == ("host-1", ["mail"], True)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kind": "handler", "name": "x", "queue_name": "nowhere"}, 404, "queue_not_found"),
        ({"kind": "handler"}, 422, "validation_error"),
        ({"kind": "handler", "name": "x", "queue_name": "mail", "extra": 1}, 422, "validation_error"),
        ({"kind": "handler", "name": "x", "queue_name": "mail", "payload": {"a": "\0"}}, 422, "validation_error"),
        ({"kind": "handler", "name": "x", "queue_name": "mail", "payload": {"a": "\ud800"}}, 422, "validation_error"),
        ({"kind": "handler", "name": "x", "queue_name": "mail", "priority": 1001}, 422, "validation_error"),
        ({"kind": "http", "name": "x", "queue_name": "mail", "payload": {"url": "ftp://x"}}, 422, "validation_error"),
        ({"kind": "handler", "name": "x", "queue_name": "mail", "payload": {"a": "x" * 3_000_000}}, 413, "too_large"),
    ],
    ids=["queue", "name", "unknown", "nul", "surrogate", "priority", "url", "size"],
)
def test_what_cannot_be_enqueued_is_a_clear_error(admin: Admin, body: object, status: int, code: str) -> None:
    reply = admin.ask("POST", "/v1/jobs", body)
    assert (reply.status, reply.body["error"]["code"]) == (status, code)
    assert reply.body["error"]["message"]
    assert "Traceback" not in json.dumps(reply.body)


def test_odd_requests_are_clear_errors(admin: Admin) -> None:
    assert admin.ask("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000").status in (404, 422)
    assert admin.ask("GET", "/v1/jobs/7fffffff-0000-8000-8000-000000000001").body["error"]["code"] == "job_not_found"
    assert admin.ask("GET", "/v1/jobs/x").status == 422
    assert admin.ask("GET", "/v1/jobs?status=odd").status == 422
    assert admin.ask("GET", "/v1/jobs?cursor=odd").status == 422
    assert admin.ask("GET", "/v1/nowhere").body["error"]["code"] == "not_found"
    assert admin.ask("POST", "/v1/jobs", raw=b"{").status == 422
    with contextlib.suppress(OSError):  # the rest of a body that is far too large is not read
        assert admin.ask("POST", "/v1/jobs", raw=b"x" * 17_000_000).status == 413
    assert admin.get("/v1/jobs")["items"] == []


def test_an_http_job_has_its_words(admin: Admin) -> None:
    payload = {"url": "https://example.com/hooks", "headers": {"X-A": "1"}, "body_base64": "aGk="}
    made = admin.enqueue(kind="http", payload=payload)
    read = admin.get(f"/v1/jobs/{made['job_id']}")
    assert (read["kind"], read["headers"]) == ("http", {"X-A": "1"})
    assert read["payload"] == {"url": "https://example.com/hooks", "base64": "aGk="}


def test_it_says_when_postgresql_is_away(own_postgres: Callable[..., PostgresServer], tmp_path: Path) -> None:
    server = own_postgres()
    with started(server.create_database(), tmp_path) as (_, admin):
        assert admin.ask("GET", "/readyz", token=None).status == 200
        server.kill()
        reply = admin.ask("GET", "/readyz", token=None)
        assert (reply.status, reply.body["error"]["code"]) == (503, "database_unavailable")
        assert admin.ask("GET", "/healthz", token=None).status == 200
        assert admin.ask("GET", "/v1/jobs").status == 503
        server.start()
        wait_until(lambda: admin.ask("GET", "/readyz", token=None).status == 200)


def test_without_tokens_it_is_not_served(database: Database, tmp_path: Path) -> None:
    port = free_port()
    with running_api(database, tmp_path, RELAY_ADMIN_ADDR=f"127.0.0.1:{port}") as api:
        with pytest.raises(OSError, match="refused"):
            Admin(port, database).ask("GET", "/healthz")
        assert "it has no tokens" in api.log.read_text()
