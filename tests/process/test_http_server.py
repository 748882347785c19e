"""The HTTP endpoint of a scheduler."""

import http.client
import json
import socket
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from relay.process.http_server import CONNECTIONS_LIMIT
from relay.process.metrics import SchedulerMetrics
from scheduler.http import Health, SchedulerHttp
from tests.waiting import wait_until

HEALTHY = Health(pipelines_owned=3, uptime_seconds=42.9)


class Endpoint:
    """A running endpoint whose health a test sets."""

    def __init__(self):
        self.health: Health | Exception = HEALTHY
        self.metrics = SchedulerMetrics(CollectorRegistry())
        self.server = SchedulerHttp(("127.0.0.1", 0), self.metrics.registry, self.snapshot)

    def snapshot(self):
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def request(self, path, method="GET", body=None):
        connection = http.client.HTTPConnection(*self.server.address, timeout=10)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


@pytest.fixture
def endpoint():
    running = Endpoint()
    running.server.start()
    yield running
    running.server.stop()


def test_a_healthy_scheduler_says_so(endpoint):
    status, headers, body = endpoint.request("/health")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert body == b'{"status":"healthy","pipelines_owned":3,"uptime_seconds":42}'


def test_an_unhealthy_scheduler_says_why(endpoint):
    endpoint.health = Health(0, 7, ("the loop is stuck",), ("no connection to PostgreSQL",))
    status, _, body = endpoint.request("/health")
    assert status == 503
    assert json.loads(body) == {
        "status": "unhealthy",
        "pipelines_owned": 0,
        "uptime_seconds": 7,
        "reasons": ["the loop is stuck", "no connection to PostgreSQL"],
    }


def test_what_is_wrong_outside_is_told_and_no_reason_for_a_restart(endpoint):
    endpoint.health = Health(0, 7, (), ("broker refused",))
    status, _, body = endpoint.request("/health")
    assert status == 200
    assert body == b'{"status":"degraded","pipelines_owned":0,"uptime_seconds":7,"reasons":["broker refused"]}'


@pytest.mark.parametrize("health", [Health(0, 7, ("stuck",)), Health(0, 7, (), ("stuck",))])
def test_one_that_cannot_do_its_work_is_not_ready_and_says_why(endpoint, health):
    assert endpoint.request("/ready")[::2] == (200, b'{"ready":true}')
    endpoint.health = health
    assert endpoint.request("/ready")[::2] == (503, b'{"ready":false,"reasons":["stuck"]}')


def test_metrics_are_those_of_the_scheduler(endpoint):
    endpoint.metrics.pipelines_owned.set(3)
    status, headers, body = endpoint.request("/metrics?x=1")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"tide_relay_pipelines_owned 3.0" in body


def test_another_path_is_not_found_and_lists_the_known(endpoint):
    status, _, body = endpoint.request("/")
    assert status == 404
    assert b"/metrics, /health, /ready" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_another_method_is_not_allowed(endpoint, method):
    status, headers, _ = endpoint.request("/health", method, body=b"x" * 10)
    assert (status, headers["Allow"]) == (405, "GET")


def test_a_snapshot_that_fails_is_an_error_and_not_the_end(endpoint, caplog):
    endpoint.health = RuntimeError("a bug")
    assert endpoint.request("/health")[0] == 500
    assert "a bug" in caplog.text
    endpoint.health = HEALTHY
    assert endpoint.request("/health")[0] == 200


def test_requests_leave_no_noise_in_the_log(endpoint, caplog, capfd):
    caplog.set_level("INFO")
    endpoint.request("/health")
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_a_request_without_end_is_refused(endpoint):
    assert endpoint.request("/" + "x" * 70_000)[0] == 414


def test_silent_clients_can_take_all_connections_but_not_stop_the_server(endpoint):
    with ExitStack() as stack:
        for _ in range(CONNECTIONS_LIMIT):
            stack.enter_context(socket.create_connection(endpoint.server.address, timeout=10))
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            endpoint.request("/health")

    # The places come back: when the silent clients hang up, as here, or after the time limit.
    def answers():
        try:
            return endpoint.request("/health")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            return False

    wait_until(answers, what="a place came back")


def test_the_address_is_free_after_stop_and_stop_may_be_repeated(endpoint):
    address = endpoint.server.address
    endpoint.server.stop()
    endpoint.server.stop()
    again = SchedulerHttp(address, endpoint.metrics.registry, endpoint.snapshot)
    again.start()
    again.stop()


def test_a_taken_address_is_an_error_at_the_start(endpoint):
    with pytest.raises(OSError, match="in use"):
        SchedulerHttp(endpoint.server.address, endpoint.metrics.registry, endpoint.snapshot).start()


def test_it_listens_on_ipv6_too():
    server = SchedulerHttp(("::1", 0), CollectorRegistry(), lambda: HEALTHY)
    server.start()
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    connection.request("GET", "/ready")
    assert connection.getresponse().status == 200
    connection.close()
    server.stop()
