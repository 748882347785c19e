"""What tests of HTTP jobs share: a job to send, and a client for as long as one test."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from relay.jobs.http import HttpKeys
from relay.jobs.models import Claimed, Ended
from workers.jobs.connections import Connections
from workers.jobs.http import KEPT_BYTES, HttpSender

UUID = "00000007-0000-8000-8000-00000000002a"
LOCAL = {"allow_http": True, "allow_private_network": True}

T = TypeVar("T")


def job(url: str, headers: dict[str, Any] | None = None, request: str = '"json": {"n": 1}', **more: Any) -> Claimed:
    """`request`: what its payload has beside the URL, as JSON."""
    values: dict[str, Any] = {
        "queue": "hooks", "outbox_id": 7, "lease_id": 1, "id": 42, "attempt": 3, "kind": "h", "name": "order.webhook",
        "priority": 0, "timeout_seconds": 30, "max_attempts": 10, "created_us": 0, "due_us": 0,
        "payload": f'{{"url": {json.dumps(url)}, {request}}}',
        "headers": None if headers is None else json.dumps(headers), "metadata": None, "options": None,
        "idempotency_key": None, "run_key": None, "trace_id": None,
    }  # fmt: skip
    return Claimed(**values | more)


class Client:
    def __init__(self, keys: dict[str, Any]) -> None:
        self.connections = Connections(KEPT_BYTES)
        self.sender = HttpSender(HttpKeys.model_validate(LOCAL | keys), self.connections, "queue 'hooks'")

    async def send(self, url: str, headers: dict[str, Any] | None = None, seconds: float = 30, **more: Any) -> Ended:
        return await self.sender.send(job(url, headers, **more), asyncio.get_running_loop().time() + seconds)


@asynccontextmanager
async def client(**keys: Any) -> AsyncIterator[Client]:
    made = Client(keys)
    try:
        yield made
    finally:
        made.connections.close()


def run(test: Coroutine[Any, Any, T]) -> T:
    """On a loop of its own, with a limit, so that what hangs is a failure."""
    return asyncio.run(asyncio.wait_for(test, 25))


async def until(predicate: Callable[[], object]) -> None:
    """Looks again and again; `run` limits the time."""
    while not predicate():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
