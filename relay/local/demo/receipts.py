"""The jobs of `relay demo`: every fifth order has a receipt, enqueued in the transaction of the order."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.database.connection import Connection
from relay.jobs import Context, Retry, job
from relay.local.demo.orders import Ledger

QUEUE = "receipts"
EVERY = 5
FAILURES = 2
"""How often the receipt of every fifth such order fails before it is sent."""


@job(name="relay.demo.send_receipt", queue=QUEUE)
async def send_receipt(context: Context, order: int) -> int:
    """Sends nothing: the demo counts that it ran."""
    if context.attempt <= failures(order):
        raise Retry(random.uniform(0.02, 0.1), f"the receipt of order {order} fails the first {FAILURES} times")
    return order


def wanted(number: int) -> bool:
    return number % EVERY == 0


def failures(number: int) -> int:
    return FAILURES if number % EVERY**2 == 0 else 0


def enqueue(connection: Connection, numbers: Iterable[int]) -> None:
    """The receipts of these orders, labelled so that they are known again."""
    for number in filter(wanted, numbers):
        send_receipt.with_options(dedupe_key=_label(number)).enqueue(connection, order=number)


def _label(number: int) -> str:
    return f"order:{number}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one job."""

    label: str
    state: str
    attempts: int


@dataclass(frozen=True, slots=True)
class ReceiptVerdict:
    """The result of the jobs."""

    enqueued: int
    rolled_back: int
    succeeded: int
    failing_first: int
    """Of them, those that failed twice first, and then succeeded."""
    missing: int
    """Committed, and without a job that has succeeded."""
    wrong_attempts: int
    """They ran less often than they should, or more often."""
    uncommitted: int
    """There, although they were rolled back."""

    @property
    def right(self) -> bool:
        return self.enqueued > 0 and not (self.missing or self.wrong_attempts or self.uncommitted)


def judge_receipts(ledger: Ledger, found: Mapping[str, Receipt]) -> ReceiptVerdict:
    """Compares what was committed with the jobs that there are."""
    committed = {_label(number): failures(number) for number, _ in ledger.committed.values() if wanted(number)}
    ran = {label: receipt for label, receipt in found.items() if receipt.state == "succeeded"}
    return ReceiptVerdict(
        enqueued=len(committed),
        rolled_back=sum(map(wanted, ledger.undone)),
        succeeded=len(committed.keys() & ran.keys()),
        failing_first=sum(failing > 0 for label, failing in committed.items() if label in ran),
        missing=len(committed.keys() - ran.keys()),
        wrong_attempts=sum(ran[label].attempts != committed[label] + 1 for label in committed.keys() & ran.keys()),
        uncommitted=len(found.keys() - committed.keys()),
    )
