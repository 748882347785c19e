"""HTTP jobs: a job as a request on the engine's loop, and its answer as the job's end.

The rules are those of the webhook sink: which addresses may be reached, which headers be sent, how a request is signed,
and what a status, an exception and `Retry-After` mean.
"""

import time
from urllib.parse import quote

import h11

from relay.backends.common.addresses import ForbiddenAddress
from relay.backends.common.tls import tls_context
from relay.backends.webhook.errors import ERRORS, refusal
from relay.backends.webhook.headers import RawHeaders, header_value
from relay.database.connection import storable
from relay.jobs.ends import error_text
from relay.jobs.http import (
    BadHttpJob,
    Hosts,
    HttpKeys,
    HttpRequest,
    allowed_hosts,
    check_allow_http,
    check_host,
    read_http_job,
)
from relay.jobs.models import Claimed, Ended, Outcome
from relay.known_secrets import LONGEST_SPARE, spare
from relay.masking import mask
from workers.jobs.connections import Answer, Connection, Connections

PREVIEW_BYTES = 2000
KEPT_BYTES = PREVIEW_BYTES + 2 * LONGEST_SPARE
"""More than is shown: a secret that the end cuts in half would not be recognized."""

# Of an idempotency key. The rest is percent-encoded, and so is %: two keys are never one in a header.
_AS_IT_IS = "".join(map(chr, range(33, 127))).replace("%", "")


class HttpSender:
    """Sends the jobs of one queue. Made in any thread; `send` belongs to the loop of its connections."""

    def __init__(self, keys: HttpKeys, connections: Connections, where: str) -> None:
        """`keys` with their secrets resolved. Reads certificates. Raises ConfigError, which says `where`."""
        keys.remember_secrets()
        self._keys = keys
        self._hosts = (allowed_hosts(), Hosts(keys.hosts))
        self._connections = connections
        self._context = tls_context(keys, where)
        self._context.set_alpn_protocols(["http/1.1"])
        self._headers = keys.request_headers

    async def send(self, job: Claimed, deadline: float) -> Ended:
        """What became of it: `s`, `d`, or `r`, also at the last attempt. `deadline` is of the loop's clock.

        A cancelled call closes its connection, and raises CancelledError.
        """
        try:
            request = self._checked(job)
        except BadHttpJob as error:
            return Ended("d", error.code, error_text(str(error)))
        began = time.monotonic()
        try:
            return self._judge(await self._answer(request, self._headers_of(job, request), deadline))
        except (OSError, h11.ProtocolError, ForbiddenAddress) as error:
            permanent, code = ERRORS.verdict(error)
            text = f"{str(error) or 'no answer in time'}, after {time.monotonic() - began:.1f} s"
            return Ended("d" if permanent else "r", code, error_text(text))

    def _checked(self, job: Claimed) -> HttpRequest:
        request = read_http_job(job.payload, job.headers)
        check_allow_http(request.origin, self._keys)
        for hosts in self._hosts:
            check_host(request.origin, hosts)
        if len(request.body or b"") > self._keys.max_body_bytes:
            raise BadHttpJob(
                f"the body is longer than {self._keys.max_body_bytes} bytes: see max_body_bytes", "too_large"
            )
        return request

    def _headers_of(self, job: Claimed, request: HttpRequest) -> RawHeaders:
        message_id = job.uuid if job.idempotency_key is None else quote(job.idempotency_key, safe=_AS_IT_IS)
        headers = self._headers.of(
            request.origin.header, message_id, request.body, request.headers, request.content_type
        )
        headers.append((b"X-PgRelay-Job-Id", job.uuid.encode()))
        headers.append((b"X-PgRelay-Attempt", b"%d" % job.attempt))
        if job.trace_id is not None:
            headers.append((b"X-PgRelay-Trace-Id", header_value(job.trace_id)))
        return headers

    async def _answer(self, request: HttpRequest, headers: RawHeaders, deadline: float) -> Answer:
        key = (self, request.origin)
        connection = self._connections.idle(key)
        if connection is not None:
            try:
                return await self._exchange(connection, request, headers, deadline)
            except ConnectionError:
                # The receiver closed what lay idle, while the request was on its way.
                if not connection.is_silent:
                    raise
        connection = await self._connections.connect(
            request.origin,
            self._context if request.origin.scheme == "https" else None,
            deadline,
            allow_private=self._keys.allow_private_network,
        )
        return await self._exchange(connection, request, headers, deadline)

    async def _exchange(
        self, connection: Connection, request: HttpRequest, headers: RawHeaders, deadline: float
    ) -> Answer:
        answer = await connection.exchange(request.method, request.target, headers, request.body or b"", deadline)
        self._connections.keep((self, request.origin), connection)
        return answer

    def _judge(self, answer: Answer) -> Ended:
        refused = refusal(answer.status, answer.retry_after, self._keys.retry_on, "enqueue it with the new address")
        preview = _preview(answer.body)
        if refused is None:
            return Ended("s", response_status=answer.status, preview=preview)
        outcome: Outcome = "d" if refused.permanent else "r"
        return Ended(outcome, refused.code, refused.reason, answer.status, preview, None, refused.pause_seconds)


def _preview(body: bytes) -> str | None:
    """Text that PostgreSQL can hold, however broken it came."""
    if not body:
        return None
    more = 2 * spare()
    whole = len(body) <= PREVIEW_BYTES + more
    text = mask(body[: PREVIEW_BYTES + more].decode(errors="replace"), most_characters=None)
    if not whole:
        text = text[: max(0, len(text) - spare())]
    return storable(text).encode()[:PREVIEW_BYTES].decode(errors="ignore")
