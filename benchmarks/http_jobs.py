"""Requests of HTTP jobs a second, by the client of the workers alone: to a receiver in a process of its own, over
connections that stay open, beside the client of the webhook sink with as many at a time.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.stack import Stack
from relay.backends.webhook.client import Outgoing, WebhookClient
from relay.backends.webhook.config import WebhookSinkConfig
from relay.backends.webhook.url import parse_url
from relay.jobs.http import HttpKeys
from relay.jobs.models import Claimed
from workers.jobs.connections import Connections
from workers.jobs.http import KEPT_BYTES, HttpSender

SLOTS = 20
REQUESTS = 20_000
LIMIT_SECONDS = 60.0
REFERENCE = 217.0
"""Requests a second of the system whose users come to HTTP jobs, as it was measured on such a machine."""
BODY = b'{"order_id": 42, "customer": "c-17", "total": "99.90"}'
LOCAL = {"allow_http": True, "allow_private_network": True}


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    requests = effort.count(REQUESTS)
    url = f"{stack.receiver}/http-jobs"
    variants = {
        "jobs": _rate(requests, lambda: asyncio.run(_send(url, requests, {}))),
        "signed": _rate(requests, lambda: asyncio.run(_send(url, requests, {"signing_secret": "x" * 32}))),
        "sink": _rate(requests, lambda: _sink(url, requests)),
    }
    results = in_turns(variants, effort.rounds)
    times = ratio(results["jobs"], [REFERENCE] * effort.rounds)
    yield at_least(f"HTTP jobs, {SLOTS} slots / {REFERENCE:.0f} a second", times, 10.0, spread(results["jobs"]))
    signed = ratio(results["signed"], results["jobs"])
    yield Figure("HTTP jobs, signed / not signed", f"{signed:.2f}", note=spread(results["signed"]))
    sink = ratio(results["jobs"], results["sink"])
    yield Figure(
        f"HTTP jobs / client of the webhook sink, {SLOTS} threads", f"{sink:.2f}", note=spread(results["sink"])
    )


def _rate(requests: int, send: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        send()
        return requests / (time.perf_counter() - began)

    return measure


async def _send(url: str, requests: int, keys: dict[str, object]) -> None:
    connections = Connections(KEPT_BYTES)
    sender = HttpSender(HttpKeys.model_validate(LOCAL | keys), connections, "benchmark")
    numbers = iter(range(1, requests + 1))

    async def work() -> None:
        for number in numbers:
            deadline = asyncio.get_running_loop().time() + LIMIT_SECONDS
            ended = await sender.send(_job(url, number), deadline)
            assert ended.outcome == "s", ended

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SLOTS):
            tasks.create_task(work())
    connections.close()


def _job(url: str, number: int) -> Claimed:
    return Claimed(
        "default", 1, 1, number, 1, "http", "order.webhook", 0, 30, 10, 0, 0,
        f'{{"url": "{url}", "json": {BODY.decode()}}}', None, None, None, None, None, "trace",
    )  # fmt: skip


def _sink(url: str, requests: int) -> None:
    origin, target = parse_url(url)
    config = WebhookSinkConfig.model_validate(LOCAL | {"url": url, "max_in_flight": SLOTS})
    with closing(WebhookClient(config, origin, "benchmark")) as client, ThreadPoolExecutor(SLOTS) as pool:

        def post(number: int) -> None:
            failure = client.send(Outgoing(f"o:{number}", target, BODY, {}, 0), time.monotonic() + LIMIT_SECONDS)
            assert failure is None, failure

        list(pool.map(post, range(requests)))
