"""One request to a hook: who is it for, is it genuine, can it be stored, is it stored.

200 is said only after the commit. What the sender did wrong, in a way that sending again does not change, is told with
a status below 500; everything else is 503 with `Retry-After`.
"""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from relay.backends.webhook.signatures import Problem, standard_headers
from relay.errors import RelayError
from relay.models import Failure, InboxRow, Received
from relay.process.unforeseen import INTERNAL
from relay.web.last_response import LastResponse
from relay.web.metrics import ApiMetrics
from relay.web.webhooks.hooks import Hook, Hooks, Unavailable
from relay.web.webhooks.identity import believed, event_id, id_from, id_header
from relay.web.webhooks.limits import ArrivalRoom, Room, peer_of
from relay.web.webhooks.writer import Outcome, Writer

log = structlog.get_logger(__name__)

BODY_SECONDS = 10.0
"""How long a sender may take for the body."""
RETRY_SECONDS = 5
DISABLED_RETRY_SECONDS = 60


class Answer(Exception):
    """What the sender is told instead of 200."""

    def __init__(self, status: int, code: str, detail: str = "", *, retry: int | None = None, close: bool = False):
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail
        self.retry = retry
        self.close = close
        """The body was not read to its end, so nothing else can come over this connection."""

    def response(self) -> Response:
        headers = {} if self.retry is None else {"Retry-After": str(self.retry)}
        body = {"error": self.code} | ({"detail": self.detail} if self.detail else {})
        return (LastResponse if self.close else JSONResponse)(body, self.status, headers)


class Reception:
    """`receive` is called in the event loop only."""

    def __init__(self, hooks: Hooks, writer: Writer, metrics: ApiMetrics) -> None:
        self._hooks = hooks
        self._writer = writer
        self._metrics = metrics
        self._arrivals = ArrivalRoom()
        self._room = Room()

    async def receive(self, request: Request) -> Response:
        started = time.monotonic()
        found = self._hooks.find(request.path_params["path"])
        # A label for each path that a client invents would fill the memory.
        pipeline = found.pipeline if found else ""
        try:
            response = await self._receive(request, found)
        except Answer as answer:
            if answer.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED):  # the latter has said why
                log.info("refused", pipeline=pipeline, status=answer.status, code=answer.code, detail=answer.detail)
            response = answer.response()
        except ClientDisconnect:
            log.info("sender went away", pipeline=pipeline)
            response = Response(status_code=HTTPStatus.BAD_REQUEST)
        self._metrics.requests.labels(pipeline, response.status_code).inc()
        self._metrics.request_seconds.labels(pipeline).observe(time.monotonic() - started)
        return response

    async def _receive(self, request: Request, found: "Hook | Unavailable | None") -> Response:
        if found is None:
            if not self._hooks.loaded.is_set():
                raise Answer(503, "starting", retry=RETRY_SECONDS, close=True)
            raise Answer(404, "not_found", close=True)
        if isinstance(found, Unavailable):
            raise Answer(503, "unavailable", retry=DISABLED_RETRY_SECONDS, close=True)
        _check_head(found, request)
        headers = _headers(request)
        # Without even the looks of a signature, no body is read.
        if problem := found.verifier.problem_of_head(headers, time.time()):
            raise _unauthorized(found, problem, close=True)
        body = await _read(found, request, self._arrivals)
        return await self._take(found, headers, body)

    async def _take(self, hook: Hook, headers: dict[str, str], body: bytes) -> Response:
        if problem := hook.verifier.problem(headers, body, time.time()):
            raise _unauthorized(hook, problem)
        if hook.rate is not None and (seconds := hook.rate.take()):
            raise Answer(429, "rate_limited", retry=seconds)
        row = _row(hook, headers, body)
        with self._room.place(hook.inbox, len(body)) as has_room:
            if not has_room:
                raise _busy()
            outcome = await self._written(hook, row)
        if outcome.state == "refused":
            raise Answer(400, "refused", outcome.reason)
        # Those that are known by a member of the body may differ in others when they come again.
        if outcome.state == "other" and id_from(hook.config) != "member":
            raise Answer(409, "conflict", f"another message was received as {row.event_id!r}")
        self._metrics.messages.labels(hook.pipeline, "stored" if outcome.state == "stored" else "known").inc()
        return JSONResponse({"id": row.event_id, "known": outcome.state != "stored"})

    async def _written(self, hook: Hook, row: InboxRow) -> Outcome:
        waiting = asyncio.wrap_future(self._writer.write(hook.inbox, row))
        try:
            return await asyncio.wait_for(waiting, hook.config.timeout_ms / 1000)
        except (RelayError, TimeoutError) as error:
            log.warning("not written", pipeline=hook.pipeline, reason=str(error) or "no commit in time")
            raise Answer(503, "unavailable", retry=RETRY_SECONDS) from None


async def _read(hook: Hook, request: Request, room: ArrivalRoom) -> bytes:
    """The body, within its limits of size and time, as long as there is room."""
    peer = peer_of(request.client.host if request.client else "")
    body = bytearray()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(BODY_SECONDS) as limit:
            with room.arriving(peer, hook.pipeline, lambda: limit.reschedule(loop.time())) as arriving:
                async for piece in request.stream():
                    if len(body) + len(piece) > hook.config.max_body_bytes:
                        raise _too_large(hook)
                    if not room.grow(arriving, len(piece)):
                        raise _busy(close=True)
                    body += piece
    except TimeoutError:
        if arriving.dropped:
            raise _busy(close=True) from None
        raise Answer(408, "too_slow", f"the body took more than {BODY_SECONDS:.0f} s", close=True) from None
    return bytes(body)


def _busy(*, close: bool = False) -> Answer:
    return Answer(503, "busy", retry=RETRY_SECONDS, close=close)


def _unauthorized(hook: Hook, problem: Problem, *, close: bool = False) -> Answer:
    log.warning("signature is no good", pipeline=hook.pipeline, problem=problem)
    return Answer(401, "unauthorized", close=close)


def _check_head(hook: Hook, request: Request) -> None:
    """What can be judged before the body is read."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Answer(415, "not_json", "send Content-Type: application/json", close=True)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Answer(415, "encoded", "send the body without Content-Encoding", close=True)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > hook.config.max_body_bytes:
        raise _too_large(hook)


def _too_large(hook: Hook) -> Answer:
    return Answer(413, "too_large", f"at most {hook.config.max_body_bytes} bytes", close=True)


def _headers(request: Request) -> dict[str, str]:
    """Names in lower case; of a header that comes twice, both values."""
    headers: dict[str, str] = {}
    for name, value in request.headers.raw:
        text, key = _text(value), name.decode("latin-1").lower()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _row(hook: Hook, headers: Mapping[str, str], body: bytes) -> InboxRow:
    if not body:
        raise Answer(400, "not_json", "the body is empty")
    if hook.config.scheme == "standard":
        headers = standard_headers(headers)
    known_as = event_id(hook.config, headers, body)
    kept = {name: value for name, value in headers.items() if name not in hook.dropped}
    kept = believed(hook.wire_format, kept, body, known_as)
    row = hook.decoder.decode(Received(known_as, body, kept, subject=hook.config.path or hook.pipeline))
    if isinstance(row, Failure):
        if row.code == INTERNAL:  # no fault of the sender, who has the only copy
            raise Answer(500, INTERNAL)
        by_header = row.code == "bad_event_id" and id_from(hook.config) == "header"
        hint = f"; is there a header {id_header(hook.config)}?" if by_header else ""
        raise Answer(413 if row.code == "too_large" else 400, row.code, row.reason + hint)
    return row
