"""Answers of receivers that keep to no rule: the status line decides, and no message pays for the answer before it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from relay.backends.webhook import client
from relay.backends.webhook.status_line import KEPT_BYTES, decided
from relay.errors import NotConnected
from relay.models import Failure
from relay.pipelines.config import parse_forward
from tests.backends.webhook.harness import numbered
from tests.workers.jobs.raw_server import RawServer, Serve, Visit, raw_server

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def serving(serve: Serve) -> Iterator[RawServer]:
    """The server in a thread of its own: the sink blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(step: Callable[[], Awaitable[object]]) -> object:
        async def awaited() -> object:
            return await step()

        return asyncio.run_coroutine_threadsafe(awaited(), loop).result(20)

    context = raw_server(serve)
    server = do(context.__aenter__)
    assert isinstance(server, RawServer)
    try:
        yield server
    finally:
        do(lambda: context.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def sent(server: RawServer, messages: int = 3, **config: object) -> list[Failure]:
    """What became of so many messages of one key, each sent when the one before was answered."""
    given = {"sink_type": "webhook", "url": server.url, "allow_http": True, "allow_private_network": True}
    sink = parse_forward(given | {"timeout_ms": 20_000} | config).make_sink("p")
    sink.open()
    try:
        return list(sink.publish(numbered(*["k"] * messages)))
    finally:
        sink.close()


def answering(*pieces: bytes, close: bool = False) -> Serve:
    async def serve(visit: Visit) -> None:
        while True:
            await visit.request()
            for piece in pieces:
                await visit.answer(piece)
            if close:
                return

    return serve


def seen(server: RawServer) -> list[int]:
    """How many requests came by each connection that had one."""
    return [len(visit.requests) for visit in server.visits if visit.requests]


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 2\r\n\r\nok and more",
        HEAD + b"Content-Length: 2\r\n\r\nokHTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\ngarbage",
        HEAD + b"Content-Length: 0\r\n\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        HEAD + b"bad header\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"x: " + b"y" * 300_000 + b"\r\n\r\n",
        HEAD + b"x: y\r\n" * 100_000,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"bad header\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:70]),
)
def test_what_follows_the_status_badly_costs_the_connection_and_no_message(answer: bytes) -> None:
    with serving(answering(answer)) as server:
        assert sent(server) == []
        assert seen(server) == [1, 1, 1]


@pytest.mark.parametrize("answer", [HEAD + b"x: cut", HEAD + b"Content-Length: 9\r\n\r\nshort", HEAD])
def test_an_answer_that_is_cut_off_after_its_status_is_one(answer: bytes) -> None:
    with serving(answering(answer, close=True)) as server:
        assert sent(server) == []
        assert seen(server) == [1, 1, 1]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK", b"nonsense\r\n", b"HTTP/1.1 100 Continue\r\nx: cut"]
)
def test_without_a_status_line_nothing_was_delivered(answer: bytes) -> None:
    with serving(answering(answer, close=True)) as server, pytest.raises(NotConnected):
        sent(server)


def test_a_body_without_end_holds_up_its_message_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_BODY_SECONDS", 0.1)
    with serving(answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")) as server:
        assert sent(server) == []
        assert seen(server) == [1, 1, 1]


def test_a_head_without_end_is_decided_by_its_status_at_the_time_limit() -> None:
    with serving(answering(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nx: ")) as server:
        [first, *_] = sent(server, request_timeout_ms=200)
        assert (first.code, first.retry_after_seconds) == ("http_503", 7)


def test_answers_that_are_whole_share_a_connection() -> None:
    with serving(answering(HEAD + b"Content-Length: 2\r\n\r\n", b"ok")) as server:
        assert sent(server) == []
        assert seen(server) == [3]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n", (200, None)),
        (b"\r\nHTTP/1.0 204\n", (204, None)),
        (b"HTTP/1.1 429 x\r\nretry-AFTER:  60 \r\nx", (429, b"60")),
        (b"HTTP/1.1 429 x\r\nRetry-After: 6", (429, None)),
        (b"HTTP/1.1 429 x\r\nx: y\r\n\r\nRetry-After: 6\r\n", (429, None)),
        (b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 x\r\n", (200, None)),
        (b"HTTP/1.1 100 x\r\n", None),
        (b"HTTP/1.1 101 x\r\n\r\nHTTP/1.1 200 x\r\n", None),
        (b"HTTP/1.1 20 x\r\n", None),
        (b"HTTP/1.1 2000 x\r\n", None),
        (b"xHTTP/1.1 200 x\r\n", None),
        (b"", None),
        (b"\r\n" * KEPT_BYTES, None),
        (b"HTTP/1.1 100 x\r\n\r\n" * 5000, None),
    ],
)
def test_the_status_of_what_was_read(answer: bytes, expected: tuple[int, bytes | None] | None) -> None:
    assert decided(answer) == expected
