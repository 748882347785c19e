"""RabbitMQ for the suites, and for what is true of RabbitMQ alone."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import amqp  # type: ignore[import-untyped]

from relay.backends.rabbitmq.sink import RabbitmqSink
from relay.models import Record
from tests.backends.harness import Harness, Missing, Seen
from tests.services.halt import halted
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until

T = TypeVar("T")


class Broker:
    """What a test does with a server beside the sink or source: by py-amqp's plain calls, one connection each."""

    def __init__(self, server: RabbitmqServer) -> None:
        self.server = server

    def ask(self, question: Callable[[amqp.Channel], T]) -> T:
        server = self.server
        options = {"host": f"127.0.0.1:{server.port}", "userid": "tide", "password": server.password}
        with amqp.Connection(**options, login_method="PLAIN", confirm_publish=True) as connection:
            return question(connection.channel())

    def make_queue(self, name: str, exchange: str = "", binding_key: str = "#", **arguments: Any) -> None:
        def make(channel: amqp.Channel) -> None:
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
            if exchange:
                channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
                channel.queue_bind(name, exchange, binding_key)

        self.ask(make)

    def count(self, queue: str) -> int:
        """Messages that are ready in it."""
        return self.ask(lambda channel: int(channel.queue_declare(queue, passive=True).message_count))

    def read_all(self, queue: str) -> list[amqp.Message]:
        """Everything in the queue, in order; it stays there."""

        def read(channel: amqp.Channel) -> list[amqp.Message]:
            channel.auto_decode = False
            count = channel.queue_declare(queue, passive=True).message_count
            seen: list[amqp.Message] = []
            channel.basic_consume(queue, callback=seen.append)
            while len(seen) < count:
                channel.connection.drain_events(timeout=10)
            return seen

        seen = self.ask(read)
        # What was not acknowledged is put back when the connection has ended, each in its place.
        wait_until(lambda: self.count(queue) >= len(seen), what="everything is back in the queue")
        return seen

    def tell(self, expression: str) -> None:
        """Has the server evaluate it, in Erlang: what only its operator can do, without a restart."""
        _, options = self.server.prepare()
        node = options["env"]["RABBITMQ_NODENAME"]
        cookie = (self.server.data_dir / ".erlang.cookie").read_text()
        command = ["erl_call", "-sname", node, "-c", cookie, "-e"]
        said = subprocess.run(
            command, input=f"{expression}.\n", text=True, capture_output=True, timeout=30, check=True, **options
        )
        assert said.stdout.startswith("{ok"), said

    @contextmanager
    def limited(self, size_bytes: int) -> Iterator[None]:
        """For the length of the context the server takes no message that is larger."""
        self._set_limit(size_bytes)
        try:
            yield
        finally:
            self._set_limit(128 * 1024 * 1024)

    def _set_limit(self, size_bytes: int) -> None:
        # Each channel of RabbitMQ 3 reads the first when it opens; version 4 has copied it to the second at its start.
        self.tell(
            f"application:set_env(rabbit, max_message_size, {size_bytes}),"
            f" persistent_term:put(max_message_size, {size_bytes})"
        )

    def kill(self) -> None:
        # Else a queue that was made in the last two seconds may not be on its disk yet.
        self.tell("mnesia:sync_log()")
        self.server.kill()

    @contextmanager
    def alarmed(self) -> Iterator[None]:
        """For the length of the context the server says that its memory is full."""
        self.tell("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})")
        try:
            yield
        finally:
            self.tell("rabbit_alarm:clear_alarm({resource_limit, memory, node()})")

    def stalled(self) -> AbstractContextManager[None]:
        return halted(self.server.pid)


class RabbitmqHarness(Harness):
    kind = RabbitmqSink
    restarts = 1  # a start takes seconds, and the source's tests kill it too

    def __init__(self, server: RabbitmqServer) -> None:
        self.broker = Broker(server)
        self.name = f"contract-{uuid.uuid4().hex[:8]}"
        self.subject = f"{self.name}.orders"

    def config(self) -> dict[str, Any]:
        return {"url": self.broker.server.url, "exchange": self.name, "declare": True, "queue": self.name}

    def read_all(self) -> list[Seen]:
        found = self.broker.read_all(self.name)
        return [Seen(seen.body or b"", (seen.headers or {}).get("relay-key"), seen.headers or {}) for seen in found]

    def stall(self) -> AbstractContextManager[None]:
        return self.broker.stalled()

    def stop(self) -> None:
        self.broker.kill()

    def start(self) -> None:
        self.broker.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self.broker.server.url.replace(self.broker.server.password, "wrong-password")}

    def missing_destination(self) -> Missing:
        name = f"missing-{self.name}"
        overrides = {"exchange": name, "declare": False, "queue": None}
        return Missing(name, overrides, {"declare": True, "queue": name}, "orders")

    def records(self, *names: str, body: bytes = b"1") -> list[Record]:
        """One for each name, with the routing key of that name."""
        return [Record(n, f"orders:{n}", f"{self.name}.{name}", None, body, {}) for n, name in enumerate(names, 1)]

    def ids(self) -> list[int]:
        """The ids of the messages of all records in the queue, in order."""
        found = self.broker.read_all(self.name)
        return [int(message.properties["message_id"].partition(":")[2]) for message in found]
