"""One queue of Amazon SQS, and the requests to it that sink and source share."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from relay.backends.common.aws import advice, described, make_client
from relay.backends.sqs.config import SqsKeys
from relay.backends.sqs.errors import ERRORS
from relay.errors import ConfigError, NotConnected, RelayError
from relay.masking import mask

T = TypeVar("T")

PER_REQUEST = 10
"""Messages in one request, of whatever kind."""
_CLOSE_SECONDS = 2.0
_ATTRIBUTES = ["MaximumMessageSize", "VisibilityTimeout", "QueueArn"]


class Queue:
    """One queue, and the threads that call SQS for it. A call that is not back in time is left to its own time limit.

    `close` may come from another thread at any time. When closed it stays closed: make a new one.
    """

    attributes: Mapping[str, str]
    """Of the queue, as SQS names them; known once open."""

    def __init__(self, keys: SqsKeys, where: str, timeout_seconds: float, longest_wait_seconds: float = 0) -> None:
        self._keys = keys.with_defaults()
        self._where = where
        self._timeout_seconds = timeout_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._pool = ThreadPoolExecutor(keys.max_in_flight, f"sqs-{keys.queue_name}")
        self._lock = threading.Lock()
        self._running: set[Future[Any]] = set()
        self._closed: Future[None] = Future()
        self._client: Any = None

    def open(self) -> None:
        """Checks that the queue is there, or creates it. Raises NotConnected, ConfigError."""
        self._client = make_client(
            "sqs",
            "sqs",
            self._keys,
            self._where,
            timeout_seconds=self._timeout_seconds,
            read_timeout_seconds=self._timeout_seconds + self._longest_wait_seconds,
            max_pool_connections=self._keys.max_in_flight,
        )
        try:
            self.attributes = self.result(self.submit(self._look), time.monotonic() + self._timeout_seconds)
        except RelayError:
            raise
        except self.errors() as error:
            raise self.translated(error, opening=True) from error

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request, such as `receive_message`. Raises what boto3 raises, one of `errors()`."""
        client = self._client
        if client is None:
            raise ConnectionAbortedError("the queue was closed")
        answer: dict[str, Any] = getattr(client, operation)(QueueUrl=self._keys.queue_url, **parameters)
        return answer

    def submit(self, work: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Runs it in one of the threads. Raises NotConnected if the queue is closed."""
        try:
            future = self._pool.submit(work, *arguments)
        except RuntimeError:
            raise NotConnected(f"{self._where}: closed", code="closed") from None
        with self._lock:
            self._running.add(future)
        future.add_done_callback(self._forget)
        return future

    def result(self, future: "Future[T]", deadline: float) -> T:
        """What came of it, or its error. Raises NotConnected when it is not back in time, or the queue was closed."""
        either: list[Future[Any]] = [future, self._closed]
        wait(either, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
        if future.done() and not future.cancelled():
            return future.result()
        future.cancel()
        if self._closed.done():
            raise NotConnected(f"{self._where}: closed", code="closed")
        raise NotConnected(f"{self._where}: no answer in time", code="timeout")

    def pause(self, seconds: float) -> None:
        """Waits so long, or until the queue is closed."""
        wait([self._closed], seconds)

    def translated(self, error: BaseException, *, opening: bool = False) -> RelayError:
        code = ERRORS.verdict(error).code
        if opening and code == "no_queue":
            kind = " --attributes FifoQueue=true" if self._keys.is_fifo else ""
            return ConfigError(
                f"{self._where}: there is no such queue at {mask(self._keys.queue_url)}; create it "
                f"(aws sqs create-queue --queue-name {self._keys.queue_name}{kind}), or set create_queue to true"
            )
        return ERRORS.translated(error, self._where, opening=opening, reason=self.described(error) + advice(code))

    def described(self, error: BaseException) -> str:
        return described(error, self._keys)

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """What a call may raise. Only once boto3 is known to be there."""
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        return (BotoCoreError, ClientError, OSError)

    def close(self) -> None:
        """Calls under way are waited for, a moment; what has not begun is cancelled. May be called twice."""
        with self._lock:
            running = list(self._running)
            if not self._closed.done():
                self._closed.set_result(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        _, late = wait(running, _CLOSE_SECONDS)
        self._pool.shutdown(wait=not late)
        self._close_client()

    def _look(self) -> dict[str, str]:
        try:
            return self._attributes()
        except self._client.exceptions.QueueDoesNotExist:
            if not self._keys.create_queue:
                raise
        attributes = {"FifoQueue": "true"} if self._keys.is_fifo else {}
        self._client.create_queue(QueueName=self._keys.queue_name, Attributes=attributes)
        return self._attributes()

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = self.call("get_queue_attributes", AttributeNames=_ATTRIBUTES).get("Attributes", {})
        return found

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._running.discard(future)
        if self._closed.done():
            self._close_client()

    def _close_client(self) -> None:
        """Not before the last call that uses it is over."""
        with self._lock:
            if self._running:
                return
            client, self._client = self._client, None
        if client is not None:
            client.close()
