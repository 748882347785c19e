"""A Kubernetes API server that runs nothing: it keeps what Helm sends, so that a test can look at it.

Real in what a chart can get wrong: unknown objects are 404, a fixed field that changes is refused as the real server
refuses it, every object gets a uid and a version, a job or a pod is done as soon as it is made.
"""

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.chart.discovery import PLURALS, Object, discovery

# Fields that Kubernetes refuses to change, as paths.
FIXED = {
    "Deployment": [("spec", "selector")],
    "DaemonSet": [("spec", "selector")],
    "StatefulSet": [("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")],
    "Job": [("spec", "selector"), ("spec", "template"), ("spec", "completionMode")],
    "Service": [("spec", "clusterIP")],
}
# Where a program would run, it has run already.
DONE = {
    "Job": {
        "succeeded": 1,
        "conditions": [{"type": "Complete", "status": "True"}, {"type": "SuccessCriteriaMet", "status": "True"}],
    },
    "Pod": {"phase": "Succeeded", "conditions": []},
}


def at(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at a path of keys, None where it breaks off."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@dataclass
class ApiServer:
    """`version` is what the cluster says that it runs."""

    version: str
    url: str = ""
    objects: dict[str, Object] = field(default_factory=dict)
    _sent: defaultdict[str, list[Object]] = field(default_factory=lambda: defaultdict(list))
    _discovery: dict[str, Object] = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._discovery = discovery(self.version)

    def sent(self, namespace: str) -> list[Object]:
        """Every object that Helm sent into a namespace, in its order, as sent."""
        return self._sent[namespace]

    def note(self, path: str, body: Object) -> None:
        namespace = path.partition("/namespaces/")[2].partition("/")[0]
        self._sent[namespace].append(body)

    def get(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Object]:
        if path in self.objects:
            return 200, self.objects[path]
        if path in self._discovery:
            return 200, self._discovery[path]
        if path.rsplit("/", 1)[-1] in PLURALS:
            return 200, self._listed(path, query)
        return 404, _status(404, "NotFound", f"{path} not found")

    def put(self, path: str, body: Object, *, create: bool) -> tuple[int, Object]:
        """Keeps an object under its path. Refuses to change an immutable field."""
        with self._lock:
            before = self.objects.get(path)
            if before and create:
                return 409, _status(409, "AlreadyExists", f"{path} already exists")
            for fixed in FIXED.get(body["kind"], []) if before else []:
                if at(before, fixed) != at(body, fixed):
                    return 422, _status(422, "Invalid", f"{path}: {'.'.join(fixed)}: field is immutable")
            self.objects[path] = self._kept(body, before)
        return 200 if before else 201, self.objects[path]

    def delete(self, path: str) -> tuple[int, Object]:
        with self._lock:
            gone = self.objects.pop(path, None)
        return (200, gone) if gone else (404, _status(404, "NotFound", f"{path} not found"))

    def _kept(self, body: Object, before: Object | None) -> Object:
        number = next(self._numbers)
        uid = before["metadata"]["uid"] if before else f"00000000-0000-0000-0000-{number:012d}"
        added = {"uid": uid, "resourceVersion": str(number), "generation": 1}
        status = {"status": DONE[body["kind"]]} if body["kind"] in DONE else {}
        return {**body, **status, "metadata": {**body["metadata"], **added}}

    def _listed(self, path: str, query: Mapping[str, list[str]]) -> Object:
        found = [one for where, one in self.objects.items() if where.rpartition("/")[0] == path]
        for selector in query.get("labelSelector", []):
            wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
            found = [one for one in found if wanted.items() <= (one["metadata"].get("labels") or {}).items()]
        for selector in query.get("fieldSelector", []):
            found = [one for one in found if selector in ("", f"metadata.name={one['metadata']['name']}")]
        kind = PLURALS[path.rsplit("/", 1)[-1]]
        version = path.removeprefix("/apis/").split("/namespaces/")[0] if path.startswith("/apis/") else "v1"
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": found}


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers on a kept connection: without this each waits for the acknowledgement of the one before.
    disable_nagle_algorithm = True
    api: ApiServer

    def do_GET(self) -> None:
        path, query = self._split()
        if query.get("watch", ["false"])[0] in ("true", "1"):
            return self._watch(path, query)
        return self._answer(*self.api.get(path, query))

    def do_POST(self) -> None:
        path, _ = self._split()
        body = self._body()
        self._answer(*self._put(f"{path}/{body['metadata']['name']}", body, create=True))

    def do_PUT(self) -> None:
        path, _ = self._split()
        self._answer(*self._put(path, self._body(), create=False))

    def do_PATCH(self) -> None:
        path, _ = self._split()
        body = self._body()
        if "apply" not in self.headers.get("Content-Type", ""):
            # Release records are written whole; objects of the chart are applied, see Helm.install.
            return self._answer(415, _status(415, "UnsupportedMediaType", "this server takes only whole objects"))
        return self._answer(*self._put(path, body, create=False))

    def do_DELETE(self) -> None:
        path, _ = self._split()
        self._body()
        self._answer(*self.api.delete(path))

    def _put(self, path: str, body: Object, *, create: bool) -> tuple[int, Object]:
        self.api.note(path, body)
        return self.api.put(path, body, create=create)

    def _watch(self, path: str, query: Mapping[str, list[str]]) -> None:
        """Tells of what is there and that this was all. Nothing happens later, so it waits for the client to go."""
        _, listed = self.api.get(path, query)
        end = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": "1"}
        seen = {"kind": listed["kind"].removesuffix("List"), "apiVersion": listed["apiVersion"], "metadata": end}
        events = [{"type": "ADDED", "object": one} for one in listed["items"]] + [{"type": "BOOKMARK", "object": seen}]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))
        self.rfile.read(1)

    def _split(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path.rstrip("/"), parse_qs(parts.query)

    def _body(self) -> Any:
        # JSON is YAML; server-side apply says that it sends YAML.
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            return json.loads(text or b"null")
        except ValueError:
            return yaml.safe_load(text)

    def _answer(self, code: int, body: Object) -> None:
        self._send(code, json.dumps(body).encode())

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def api_server(version: str) -> Iterator[ApiServer]:
    api = ApiServer(version)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
