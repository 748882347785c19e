"""The HTTP endpoint of a scheduler."""

import http.client
import json
import socket
import threading
from contextlib import ExitStack, closing, suppress

import pytest
from prometheus_client import CollectorRegistry

from relay.process.http_server import CONNECTIONS_LIMIT, UNREAD_BYTES_LIMIT, HttpServer, text
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.http import Health, SchedulerHttp
from tests.waiting import wait_until
from tests.web.api import smuggled

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


def silent(_connection):
    pass


def stopped_in_the_line(connection):
    connection.sendall(b"GET /hea")


def stopped_in_the_head(connection):
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 5000)


def never_reading(connection):
    connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 3)


def dripping(connections, stop):
    while not stop.wait(0.1):
        for connection in connections:
            with suppress(OSError):
                connection.send(b"x")


def test_slow_clients_can_take_all_connections_and_a_probe_is_answered_all_the_same(endpoint):
    kinds, stop = (silent, stopped_in_the_line, stopped_in_the_head, never_reading), threading.Event()
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        drip = threading.Thread(target=dripping, args=(slow, stop), daemon=True)
        drip.start()
        for count in (CONNECTIONS_LIMIT // 2, CONNECTIONS_LIMIT, 900):
            while len(slow) < count:
                connection = stack.enter_context(socket.create_connection(endpoint.server.address, timeout=10))
                with suppress(ConnectionError):
                    kinds[len(slow) % len(kinds)](connection)
                slow.append(connection)
            assert [endpoint.request(path)[0] for path in ("/health", "/ready", "/metrics") * 5] == [200] * 15
        stop.set()
        drip.join()


def test_one_who_asks_is_not_dropped_for_those_who_do_not(endpoint):
    """Its answer takes long, and many others come meanwhile."""
    called, go_on = threading.Event(), threading.Event()

    def slow_snapshot():
        called.set()
        assert go_on.wait(20)
        return HEALTHY

    endpoint.server.stop()
    server = SchedulerHttp(("127.0.0.1", 0), endpoint.metrics.registry, slow_snapshot)
    server.start()
    with ExitStack() as stack:
        asking = http.client.HTTPConnection(*server.address, timeout=20)
        asking.request("GET", "/health")
        assert called.wait(20)
        for _ in range(2 * CONNECTIONS_LIMIT):
            stack.enter_context(socket.create_connection(server.address, timeout=10))
        with closing(http.client.HTTPConnection(*server.address, timeout=20)) as other:
            other.request("GET", "/metrics")  # another route does not wait for it
            assert other.getresponse().status == 200
        go_on.set()
        assert asking.getresponse().status == 200
        asking.close()
    server.stop()


def test_a_request_has_one_deadline_however_steadily_it_drips(endpoint, monkeypatch):
    monkeypatch.setattr("relay.process.http_server.REQUEST_SECONDS", 0.3)
    with socket.create_connection(endpoint.server.address, timeout=0.02) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Long: ")

        def is_ended():
            try:
                connection.send(b"x")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_ended, 5)


def test_answers_that_are_not_read_are_bounded_together_and_the_last_is_whole():
    body = b"x" * (UNREAD_BYTES_LIMIT // 2)
    server = HttpServer(("127.0.0.1", 0), {"/metrics": lambda: text(200, body.decode())})
    with ExitStack() as stack:
        clients = []
        for _ in range(8):
            clients.append(stack.enter_context(closing(http.client.HTTPConnection(*server.address, timeout=20))))
            clients[-1].request("GET", "/metrics")
        assert len(clients[-1].getresponse().read()) == len(body) + 1
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            clients[0].getresponse().read()
    server.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health HTTP/1.1\nHost: x\n\n", b"200"),
        (b"GET /health\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", b"400"),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 4000, b"431"),
        (b"POST /health HTTP/1.1\r\nContent-Length: 999999\r\n\r\nx", b"405"),
    ],
)
def test_whatever_is_sent_has_an_answer(endpoint, sent, status):
    with socket.create_connection(endpoint.server.address, timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.split()[1] == status


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


def test_a_request_that_ends_in_two_places_ends_its_connection(endpoint):
    """No body is read, and nothing is taken for another request."""
    answer = smuggled(endpoint.server.address[1], "GET /health")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer
