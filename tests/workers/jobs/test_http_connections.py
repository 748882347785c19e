"""HTTP jobs on the wire: connections that are used again, answers that are broken or endless, and what is cancelled.

The server is in the test, on real sockets: it has to end, stall and break its connections at exact moments.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from relay.jobs.models import Ended
from tests.workers.jobs.http_client import Client, client, run, until
from tests.workers.jobs.raw_server import OK, RawServer, Serve, Visit, always_ok, raw_server
from workers.jobs import connections

HEAD = b"HTTP/1.1 200 OK\r\n"


def meet(serve: Serve, test: Callable[[RawServer, Client], Awaitable[None]]) -> None:
    async def met() -> None:
        async with raw_server(serve) as server, client() as own:
            await test(server, own)

    run(met())


def answers(*pieces: bytes) -> Serve:
    """Answers each request with these bytes, then closes the connection."""

    async def serve(visit: Visit) -> None:
        await visit.request()
        for piece in pieces:
            await visit.answer(piece)

    return serve


def ended_by(*pieces: bytes) -> Ended:
    found: list[Ended] = []

    async def test(server: RawServer, own: Client) -> None:
        found.append(await own.send(server.url))

    meet(answers(*pieces), test)
    return found[0]


class TestConnectionsThatAreKept:
    def test_one_serves_many_requests_in_turn_and_others_those_at_the_same_time(self) -> None:
        async def test(server: RawServer, own: Client) -> None:
            for _ in range(20):
                assert (await own.send(server.url)).outcome == "s"
            assert len(server.visits) == 1
            ended = await asyncio.gather(*(own.send(server.url) for _ in range(5)))
            assert {one.outcome for one in ended} == {"s"}
            assert 1 < len(server.visits) <= 5
            assert len(server.heads) == 25

        meet(always_ok, test)

    def test_one_that_the_server_closed_meanwhile_costs_no_attempt(self) -> None:
        async def closes_on_the_second(visit: Visit) -> None:
            await visit.request()
            await visit.answer(OK)
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            assert (await own.send(server.url)).outcome == "s"
            assert (await own.send(server.url)).outcome == "s"
            assert [len(visit.requests) for visit in server.visits] == [2, 1]

        meet(closes_on_the_second, test)

    def test_one_that_was_seen_to_be_closed_is_not_used(self) -> None:
        async def test(server: RawServer, own: Client) -> None:
            await own.send(server.url)
            await server.ended[0].wait()
            await until(lambda: own.connections.idle_count == 0)
            assert (await own.send(server.url)).outcome == "s"
            assert [len(visit.requests) for visit in server.visits] == [1, 1]

        meet(answers(OK), test)

    @pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 2"])
    def test_a_new_one_that_is_closed_and_one_that_has_begun_to_answer_fail(self, piece: bytes) -> None:
        async def only_the_first(visit: Visit) -> None:
            await visit.request()
            if visit.number == 1:
                await visit.answer(OK)
                await visit.request()
            await visit.answer(piece)

        async def test(server: RawServer, own: Client) -> None:
            await own.send(server.url)
            ended = await own.send(server.url)
            assert (ended.outcome, ended.code) == ("r", "not_connected")
            # Without a byte it was sent once more, and once only; with one, someone may have begun to act on it.
            assert len(server.heads) == (2 if piece else 3)

        meet(only_the_first, test)

    @pytest.mark.parametrize("at_once", [True, False])
    def test_one_that_says_more_than_it_was_asked_is_closed(self, at_once: bool) -> None:
        ended = asyncio.Event()

        async def speaks(visit: Visit) -> None:
            await visit.request()
            await visit.answer(OK + OK.replace(b"ok", b"no") if at_once else OK)
            await ended.wait()
            await visit.answer(b"" if at_once else b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            assert (await own.send(server.url)).preview == "ok"
            assert own.connections.idle_count == (0 if at_once else 1)
            ended.set()
            await server.ended[0].wait()
            assert len(server.heads) == 1

        meet(speaks, test)

    def test_no_more_than_enough_and_for_no_longer_than_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "MOST_IDLE_OF_ORIGIN", 2)
        monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", 0.3)
        together = asyncio.Barrier(5)

        async def waits_for_all(visit: Visit) -> None:
            await visit.request()
            await together.wait()
            await visit.answer(OK)
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            await asyncio.gather(*(own.send(server.url) for _ in range(5)))
            assert own.connections.idle_count == 2
            await asyncio.gather(*(one.wait() for one in server.ended))  # the last two by their age
            assert own.connections.idle_count == 0

        meet(waits_for_all, test)

    def test_none_after_the_end(self) -> None:
        async def test(server: RawServer, own: Client) -> None:
            await own.send(server.url)
            own.connections.close()
            await server.ended[0].wait()

        meet(always_ok, test)


class TestAnswers:
    @pytest.mark.parametrize(
        ("pieces", "preview"),
        [
            ((b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"), "until the end"),
            ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"), "ok"),
            ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK), "ok"),
            ((HEAD + b"Content-Length: 9\r\n\r\nshort",), "short"),
            ((HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",), None),
            ((HEAD + b"Content-Length: 0\r\n\r\n",), None),
            ((HEAD + b"bad header\r\n\r\n",), None),
            ((HEAD + b"x: " + b"y" * 200_000,), None),
            ((HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",), None),
            ((HEAD + b"x: cut",), None),
            ((HEAD + b"Content-Length: 2\r\n\r\nok and more",), "ok"),
            ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore",), "ok"),
        ],
    )
    def test_the_status_counts_and_what_can_be_read_of_the_body_is_kept(
        self, pieces: tuple[bytes, ...], preview: str | None
    ) -> None:
        assert ended_by(*pieces) == Ended("s", response_status=200, preview=preview)

    @pytest.mark.parametrize(
        "pieces",
        [
            (),
            (b"nonsense\r\n\r\n",),
            (b"HTTP/1.1 200",),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,),
        ],
    )
    def test_what_is_no_answer_is_retried(self, pieces: tuple[bytes, ...]) -> None:
        ended = ended_by(*pieces)
        assert (ended.outcome, ended.code, ended.response_status) == ("r", "not_connected", None)

    @pytest.mark.parametrize(
        "body",
        [
            b"a\0b\xff\xfe\xed\xa0\x80",
            "é".encode() * 1500,
            b"\0" * 2000,
            "\U0001f600".encode() * 600,
            gzip.compress(b"x", mtime=0),
        ],
        ids=["broken", "accents", "zeros", "emoji", "gzip"],
    )
    def test_whatever_comes_is_kept_as_text_that_postgresql_can_hold(self, body: bytes) -> None:
        preview = ended_by(HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body).preview
        assert preview is not None
        assert "\0" not in preview
        assert len(preview.encode("utf-8", "strict")) <= 2000
        assert preview.startswith(body[:1].decode().replace("\0", "\ufffd") if body[0] < 0x80 else preview[0])

    def test_one_without_end_is_not_read_to_its_end(self) -> None:
        sent = 0

        async def endless(visit: Visit) -> None:
            nonlocal sent
            await visit.request()
            await visit.answer(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                await visit.answer(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                sent += 4096

        async def test(server: RawServer, own: Client) -> None:
            ended = await own.send(server.url)
            assert (ended.outcome, ended.preview) == ("s", "x" * 2000)
            await server.ended[0].wait()  # the connection was ended for it

        meet(endless, test)
        assert sent < 50_000_000

    def test_a_body_that_stalls_holds_no_slot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)

        async def stalls(visit: Visit) -> None:
            await visit.request()
            await visit.answer(HEAD + b"Content-Length: 9\r\n\r\nbegin")
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            assert await own.send(server.url) == Ended("s", response_status=200, preview="begin")
            await server.ended[0].wait()

        meet(stalls, test)

    def test_a_body_that_stalls_until_the_deadline_is_no_timeout(self) -> None:
        async def stalls(visit: Visit) -> None:
            await visit.request()
            await visit.answer(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nbegin")
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            assert (await own.send(server.url, seconds=0.3)).code == "http_503"

        meet(stalls, test)

    def test_a_head_that_stalls_is_decided_by_its_status(self) -> None:
        async def stalls(visit: Visit) -> None:
            await visit.request()
            await visit.answer(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nx: ")
            await visit.request()

        async def test(server: RawServer, own: Client) -> None:
            ended = await own.send(server.url, seconds=0.3)
            assert (ended.code, ended.retry_seconds) == ("http_429", 7)

        meet(stalls, test)


async def never_answers(visit: Visit) -> None:
    await visit.request()
    await visit.request()


class TestWhatIsEnded:
    def test_a_job_without_an_answer_in_time_is_retried_and_its_connection_closed(self) -> None:
        async def test(server: RawServer, own: Client) -> None:
            ended = await own.send(server.url, seconds=0.2)
            assert (ended.outcome, ended.code) == ("r", "timeout")
            assert ended.error is not None
            assert ended.error.startswith("no answer in time, after 0.")
            await server.ended[0].wait()

        meet(never_answers, test)

    def test_a_cancelled_one_closes_its_connection_and_no_other(self) -> None:
        async def first_never(visit: Visit) -> None:
            await (never_answers if visit.number == 1 else always_ok)(visit)

        async def test(server: RawServer, own: Client) -> None:
            task = asyncio.create_task(own.send(server.url))
            await until(lambda: server.heads)
            assert (await own.send(server.url)).outcome == "s"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.ended[0].wait()
            assert (await own.send(server.url)).outcome == "s"
            assert [len(visit.requests) for visit in server.visits] == [1, 2]

        meet(first_never, test)
