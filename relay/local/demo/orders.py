"""What `relay demo` publishes: orders, by several writers, in every kind of transaction; some are rolled back.

Each order is also a row of a table of the application's, of which a stream table is made.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from relay.database.connection import VALUES, Connection, database_errors
from relay.process.stop import Stop
from relay.sql import query

OUTBOX = "orders"
WRITERS = 8
ROLLED_BACK = 0.08
CUSTOMERS = ("Ada", "Björn", "Chloé", "Dávid", "Eşref", "Frida", "Gül", "Håkon", "Inês", "Jürgen", "Kōji", "Łucja")
GOODS = ("tea", "lamp", "boots", "kite", "atlas", "cello", "rope", "compass")


@dataclass(slots=True)
class Budget:
    """How many orders may be published by now: `events` of them, evenly over `seconds`."""

    events: int
    seconds: float
    stop: Stop
    begun_at: float = field(default_factory=time.monotonic)
    taken: int = 0
    numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, wanted: int) -> list[int]:
        """Numbers of orders to publish, as soon as they are due; none when there are no more."""
        while not self.stop.is_set():
            with self._lock:
                if self.taken >= self.events:
                    return []
                count = min(wanted, self.events - self.taken)
                if self.taken + count <= self.events * (time.monotonic() - self.begun_at) / self.seconds + 1:
                    self.taken += count
                    return self._number(count)
            self.stop.wait(0.002)
        return []

    def take_surplus(self, count: int) -> list[int]:
        """Numbers for orders that will be rolled back: they do not count."""
        with self._lock:
            return self._number(count)

    def _number(self, count: int) -> list[int]:
        self.numbers += count
        return list(range(self.numbers - count + 1, self.numbers + 1))


@dataclass(slots=True)
class Ledger:
    """The outcome of each message, as its writer knows it."""

    committed: dict[int, tuple[int, float]] = field(default_factory=dict)
    """id -> (number of the order, when COMMIT was sent on the monotonic clock)."""
    rolled_back: set[int] = field(default_factory=set)
    undone: set[int] = field(default_factory=set)
    """The numbers of those orders."""
    last_commit_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, published: dict[int, int], at: float) -> None:
        with self._lock:
            self.committed.update((message_id, (number, at)) for message_id, number in published.items())
            self.last_commit_at = max(self.last_commit_at, at)

    def roll_back(self, published: dict[int, int]) -> None:
        with self._lock:
            self.rolled_back.update(published)
            self.undone.update(published.values())


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer buys."""

    number: int
    customer: str
    items: list[str]
    total: float

    @property
    def payload(self) -> str:
        return json.dumps({"order": self.number, "customer": self.customer, "items": self.items, "total": self.total})


Enqueue = Callable[[Connection, list[int]], None]
"""Enqueues what is to be done for these orders, in the transaction of the connection."""


class Writer:
    """An application: one session, one transaction after the other until the budget is used up."""

    def __init__(self, postgres_url: str, budget: Budget, ledger: Ledger, seed: int, enqueue: Enqueue) -> None:
        self._url = postgres_url
        self._enqueue = enqueue
        self._budget = budget
        self._ledger = ledger
        self._random = random.Random(seed)
        self._kinds: list[Callable[[Connection, list[int]], dict[int, int]]] = [
            self._one_by_one, self._one_by_one, self._one_by_one, self._in_bulk, self._with_savepoint,
        ]  # fmt: skip

    def run(self) -> None:
        """Raises NotConnected when PostgreSQL is lost."""
        name = "relay demo writer"
        with (
            database_errors(),
            psycopg.connect(self._url, application_name=name, connect_timeout=10, **VALUES) as connection,
        ):
            while not self._budget.stop.is_set():
                if self._random.random() < ROLLED_BACK:
                    self._roll_back(connection)
                publish = self._random.choice(self._kinds)
                count = self._random.randint(10, 40) if publish == self._in_bulk else self._random.randint(1, 4)
                if not (numbers := self._budget.take(count)):
                    return
                published = publish(connection, numbers)
                self._pause()
                sent_at = time.monotonic()
                connection.commit()
                self._ledger.commit(published, sent_at)

    def _roll_back(self, connection: Connection) -> None:
        published = self._one_by_one(connection, self._budget.take_surplus(self._random.randint(1, 5)))
        self._pause()
        connection.rollback()
        self._ledger.roll_back(published)

    def _one_by_one(self, connection: Connection, numbers: list[int]) -> dict[int, int]:
        return {self._publish(connection, number): number for number in numbers}

    def _in_bulk(self, connection: Connection, numbers: list[int]) -> dict[int, int]:
        orders = [self._order(number) for number in numbers]
        row = connection.execute(
            query("publish_many"),
            {
                "outbox": OUTBOX,
                "payloads": [order.payload for order in orders],
                "keys": [order.customer for order in orders],
                "headers": ['{"type": "order.imported"}'] * len(orders),
            },
        ).fetchone()
        assert row is not None
        self._keep(connection, orders)
        return dict(zip(row[0], numbers, strict=True))

    def _with_savepoint(self, connection: Connection, numbers: list[int]) -> dict[int, int]:
        """A part of it is rolled back, and the rest is committed."""
        published = self._one_by_one(connection, numbers[:1])
        self._roll_back_savepoint(connection)
        return published | self._one_by_one(connection, numbers[1:])

    def _roll_back_savepoint(self, connection: Connection) -> None:
        with connection.transaction() as savepoint:
            self._ledger.roll_back(self._one_by_one(connection, self._budget.take_surplus(2)))
            self._pause()
            raise psycopg.Rollback(savepoint)

    def _publish(self, connection: Connection, number: int) -> int:
        order = self._order(number)
        headers = '{"type": "order.created"}'
        parameters = {"outbox": OUTBOX, "payload": order.payload, "headers": headers, "key": order.customer}
        row = connection.execute(query("publish"), parameters).fetchone()
        assert row is not None
        self._keep(connection, [order])
        return int(row[0])

    def _keep(self, connection: Connection, orders: list[Order]) -> None:
        """What the application does besides, in the same transaction."""
        numbers = [order.number for order in orders]
        customers, totals = [order.customer for order in orders], [order.total for order in orders]
        connection.execute(query("demo_sold"), {"numbers": numbers, "customers": customers, "totals": totals})
        self._enqueue(connection, numbers)

    def _order(self, number: int) -> Order:
        customer = self._random.choice(CUSTOMERS)
        items = self._random.sample(GOODS, self._random.randint(1, 3))
        return Order(number, customer, items, self._random.randint(100, 99_999) / 100)

    def _pause(self) -> None:
        """Transactions end in a different order than they began; a few are slow."""
        longest = 0.1 if self._random.random() < 0.03 else 0.006
        self._budget.stop.wait(self._random.uniform(0, longest))
