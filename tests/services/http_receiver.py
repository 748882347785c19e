"""A receiver of webhooks for tests: a real HTTP server in a process of its own.

Every request that it has read is a line in `requests.jsonl` before it is answered, so what was answered is never
missing, however the process ends. What it answers is told in `answers.json`: for a path's beginning, a list of rules,
of which the first that fits counts. It answers 200 where no rule fits.

`python -m tests.services.http_receiver FOLDER PORT [CERT KEY [CLIENT_CA]]` runs it.
"""

import asyncio
import base64
import contextlib
import json
import signal
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from relay.local.server_process import ServerProcess


@dataclass(frozen=True)
class Rule:
    """How to answer, for requests whose body contains `contains`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    contains: str = ""
    times: int | None = None
    """After so many it does not fit any more; None: always."""
    delay_ms: int = 0
    hang_up: bool = False
    """Ends the connection instead of answering."""
    drip_ms: int = 0
    """Answers byte by byte, with so much time between."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    status: int
    at_once: int
    """How many requests to its path's first part were being answered when it came, itself among them."""
    connection: int
    """The number of the connection that it came by."""


class HttpReceiver(ServerProcess):
    """Listens on 127.0.0.1. `kill` then `start` keeps port, requests and rules."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, data_dir: Path, tls: Sequence[Path] = ()) -> None:
        """`tls`: certificate and key, and the authority of clients where they must have a certificate."""
        super().__init__(data_dir)
        self._tls = [str(path) for path in tls]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        module = [sys.executable, "-m", "tests.services.http_receiver"]
        return [*module, str(self.data_dir), str(self.port), *self._tls], {"cwd": Path(__file__).parents[2]}

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def rule(self, path: str, *rules: Rule) -> None:
        """From now on answers requests whose path begins with `path` by these rules."""
        file = self.data_dir / "answers.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        known[path] = [asdict(rule) for rule in rules]
        beside = self.data_dir / "answers.new"
        beside.write_text(json.dumps(known))
        beside.replace(file)

    def requests(self, path: str) -> list[Request]:
        """Every request whose path begins with `path`, in order of arrival."""
        file = self.data_dir / "requests.jsonl"
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        # A process that was killed may have left half a line, at which the next one then went on.
        found = [json.loads(line) for line in lines if f'"target": "{path}'.encode() in line]
        return [Request(**one | {"body": base64.b64decode(one["body"])}) for one in found]


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = (folder / "requests.jsonl").open("ab", buffering=0)
        self._rules: dict[str, list[dict[str, Any]]] = {}
        self._read_at = 0
        self._busy: Counter[str] = Counter()
        self._connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            while await self._answer(reader, writer, number):
                pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "surrogateescape")
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # else the client waits a second for it
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = target.split("/")[1]
        self._busy[path] += 1
        try:
            rule = self._rule(target, body)
            status = 0 if rule.hang_up else rule.status
            request = Request(method, target, headers, body, status, self._busy[path], number)
            line = asdict(request) | {"body": base64.b64encode(body).decode()}
            self._log.write(json.dumps(line).encode() + b"\n")
            if rule.delay_ms:
                await asyncio.sleep(rule.delay_ms / 1000)
        finally:
            self._busy[path] -= 1
        if rule.hang_up:
            return False
        await self._write(writer, rule)
        return True

    async def _write(self, writer: asyncio.StreamWriter, rule: Rule) -> None:
        body = rule.body.encode()
        phrase = HTTPStatus(rule.status).phrase
        lines = [f"HTTP/1.1 {rule.status} {phrase}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in rule.headers.items()]
        whole = "\r\n".join([*lines, "", ""]).encode() + body
        pieces = [whole[i : i + 1] for i in range(len(whole))] if rule.drip_ms else [whole]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if rule.drip_ms:
                await asyncio.sleep(rule.drip_ms / 1000)

    def _rule(self, target: str, body: bytes) -> Rule:
        file = self._folder / "answers.json"
        changed = file.stat().st_mtime_ns if file.exists() else 0
        if changed != self._read_at:
            self._rules, self._read_at = json.loads(file.read_text()), changed
        for path, rules in self._rules.items():
            if not target.startswith(path):
                continue
            for rule in rules:
                if rule["times"] != 0 and rule["contains"].encode() in body:
                    if rule["times"] is not None:
                        rule["times"] -= 1
                    return Rule(**rule)
        return Rule()


async def _main(folder: str, port: str, *tls: str) -> None:
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls[0], tls[1])
        if len(tls) > 2:
            context.load_verify_locations(tls[2])
            context.verify_mode = ssl.CERT_REQUIRED
    server = _Server(Path(folder))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", int(port), ssl=context, limit=1 << 20)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
