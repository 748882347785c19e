"""`relay api` as a process, and a client that speaks to it."""

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from relay.backends.webhook.signatures import sign_standard, standard_key
from relay.local.server_process import free_port
from tests.cli.command import environment
from tests.fleets.forked import launch
from tests.paths import ROOT
from tests.services.postgres import Database
from tests.waiting import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: Any


class ApiProcess:
    """Ends with the context. Its log is `api.log` in `folder`."""

    def __init__(self, url: str, folder: Path, **variables: str) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.log = folder / "api.log"
        given = {"RELAY_POSTGRES_URL": url, "RELAY_API_METRICS_ADDR": f"127.0.0.1:{self.metrics_port}"} | variables
        python = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "relay.cli", "api", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = launch(command, environment(**given, **python), log)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.get("/ready").status == 200
            except OSError:
                return False

        wait_until(ready, 60)

    def wait_for(self, path: str, status: int = 401) -> None:
        """Until the hook answers so: it is known by then."""
        wait_until(lambda: self.post(path, b"{}", {"content-type": "application/json"}).status == status)

    def get(self, path: str, port: int | None = None) -> Reply:
        return self._ask("GET", path, b"", {}, port)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        return self._ask("POST", f"/hooks/{path}", body, headers, None)

    def send(self, path: str, event_id: str, body: bytes = b'{"n": 1}', headers: dict[str, Any] | None = None) -> Reply:
        """Signed as `standard` with `SECRET`."""
        return self.post(path, body, signed(event_id, body) | (headers or {}))

    @contextmanager
    def begun(self, path: str, *headers: str, peer: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A request of which only the head was sent, as by one who knows no secret: with a signature for nothing."""
        headers = (*headers, *(f"{name}: {value}" for name, value in signed("x", b"?").items()))
        lines = [f"POST /hooks/{path} HTTP/1.1", "host: x", *headers, "", ""]
        with self.connected(peer) as connection:
            connection.sendall("\r\n".join(lines).encode())
            yield connection

    def connected(self, peer: str) -> socket.socket:
        """From that address of this machine."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(peer, 0))

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str], port: int | None) -> Reply:
        with closing(http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)) as connection:
            connection.request(method, path, body, headers)
            return reply(connection)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def reply(connection: http.client.HTTPConnection) -> Reply:
    response = connection.getresponse()
    text = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    is_json = headers.get("content-type", "").startswith("application/json")
    return Reply(response.status, headers, json.loads(text) if is_json else text)


@contextmanager
def running_api(database: Database, folder: Path, **variables: str) -> Iterator[ApiProcess]:
    api = ApiProcess(database.url, folder, **variables)
    try:
        api.wait_until_ready()
        yield api
    finally:
        api.kill()


def smuggled(port: int, request: str) -> bytes:
    """All that is answered to a request with two ends, in whose body another request hides."""
    head = f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    hidden = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall((head + hidden).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def signed(event_id: str, body: bytes, secret: str = SECRET, seconds: float | None = None) -> dict[str, str]:
    now = int(time.time() if seconds is None else seconds)
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign_standard([standard_key(secret)], event_id, now, body),
    }


def make_hook(database: Database, name: str, inbox: str | None = None, **config: Any) -> str:
    """An inbox of the same name, and a pipeline into it."""
    keys = {"source_type": "webhook", "signing_secret": SECRET} | config
    keys = {key: value for key, value in keys.items() if value is not None}
    with database.connect() as connection:
        if inbox is None:
            connection.execute("select tide.inbox_create(%s)", [name])
        connection.execute("select tide.relay_set_inbox(%s, %s, %s)", [name, inbox or name, json.dumps(keys)])
    return name


def stored(database: Database, inbox: str) -> dict[str, Any]:
    """Payloads by event id, in order of arrival."""
    with database.connect() as connection:
        rows = connection.execute(f'select event_id, payload from tide."{inbox}" order by inbox_seq').fetchall()
    return dict(rows)
