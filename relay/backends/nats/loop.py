"""The thread in which nats-py's asyncio loop runs. Imports nothing of the client library."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from relay.errors import NotConnected

T = TypeVar("T")

_CLOSE_SECONDS = 2.0


class LoopThread:
    """A thread that runs an asyncio loop until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def encrypted(self) -> bool:
        return self._loop.encrypted

    def call(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """The result of `work`, or its exception. Raises TimeoutError, and NotConnected if the loop is stopped."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise NotConnected("it was closed", code="closed") from None
        try:
            return future.result(seconds)
        except concurrent.futures.CancelledError:
            raise NotConnected("it was closed", code="closed") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Ends every connection and task of the loop, and the thread. May be called twice."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_up())
        finally:
            self._loop.close()

    async def _wind_up(self) -> None:
        for transport in self._loop.transports:
            transport.abort()
        # The client swallows some cancellations, so ask more than once.
        for _ in range(5):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)


class _Loop(asyncio.SelectorEventLoop):
    """Remembers its transports: a connection to a server that hangs can be closed only by aborting it."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[asyncio.WriteTransport] = []
        self.encrypted = False

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **options)
        self.transports.append(transport)
        return transport, protocol

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        transport = await super().start_tls(*args, **options)
        self.encrypted = True
        return transport
