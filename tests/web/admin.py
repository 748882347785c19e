"""The admin API as a process, and a client that speaks to it."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from relay.local.server_process import free_port
from tests.services.postgres import Database
from tests.web.api import ApiProcess, running_api

TOKEN = "dev-token-change-me"
READ_ONLY = "only-for-reading-0123"


class Reply(NamedTuple):
    status: int
    body: Any


class Admin:
    """A client of one process."""

    def __init__(self, port: int, database: Database) -> None:
        self.port = port
        self.database = database

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, raw: bytes = b"") -> Reply:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = raw or (None if body is None else json.dumps(body).encode())
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                text = response.read()
                return Reply(response.status, json.loads(text) if text else None)
        except urllib.error.HTTPError as error:
            return Reply(error.code, json.loads(error.read()))

    def get(self, path: str) -> Any:
        reply = self.ask("GET", path)
        assert reply.status == 200, reply
        return reply.body

    def enqueue(self, **fields: Any) -> Any:
        reply = self.ask("POST", "/v1/jobs", {"queue_name": "mail", "kind": "handler", "name": "send", **fields})
        assert reply.status in (200, 201), reply
        return reply.body

    def end(self, number: int, outcome: str, code: str | None = None, error: str | None = None) -> None:
        """Claims so many jobs as a worker does, and ends them."""
        with self.database.connect(autocommit=True) as connection:
            connection.execute(
                """
                with w as (select tide.job_worker_start('host-1', 7, '{mail}', 5) as id),
                     c as materialized (
                         select w.id as worker, c.*
                           from w, tide.job_queue q, tide.job_claim(q.outbox_id, w.id, %s) c where q.name = 'mail')
                select tide.job_finish(c.worker, array[c.lease_id], array[c.id], array[c.attempt],
                                       array[%s]::"char"[], array[12], array[%s], array[%s])
                  from c""",
                [number, outcome, code, error],
            )


class started:  # noqa: N801
    """`relay api` with its admin API."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._port = free_port()
        self._admin = Admin(self._port, database)
        self._running = running_api(
            database,
            folder,
            RELAY_ADMIN_ADDR=f"127.0.0.1:{self._port}",
            RELAY_CONNECT_TIMEOUT="1s",
            RELAY_API_AUTH_TOKENS=f"another-token-{'x' * 20},{TOKEN}",
            PGRELAY_API_READ_ONLY_AUTH_TOKENS=READ_ONLY,
        )

    def __enter__(self) -> tuple[ApiProcess, Admin]:
        return self._running.__enter__(), self._admin

    def __exit__(self, *exception: Any) -> None:
        self._running.__exit__(*exception)
