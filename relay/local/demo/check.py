"""What arrived in `relay demo`, compared with what was committed."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from relay.local.demo.orders import Ledger

# Adds at most this to what is measured for the file.
TAIL_PAUSE_SECONDS = 0.001


class Arrivals:
    """What one pipeline delivered, line by line, each an envelope."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.first: dict[int, tuple[int, float]] = {}
        """id -> (number of the order, when it arrived first on the monotonic clock)."""
        self.duplicates = 0
        self.out_of_order = 0
        self.unreadable = 0
        self.recent: deque[int] = deque(maxlen=400)
        self.last: deque[dict[str, object]] = deque(maxlen=4)
        self._highest = 0

    def arrived(self, line: bytes) -> None:
        """One thread at a time."""
        now = time.monotonic()
        try:
            envelope = json.loads(line)
            message_id, order = envelope["message_id"], envelope["payload"]
            number = order["order"]
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return
        if message_id in self.first:
            self.duplicates += 1
            return
        # A repeated run may come twice, but a new id must be above all before it.
        self.out_of_order += message_id < self._highest
        self._highest = max(self._highest, message_id)
        self.first[message_id] = (number, now)
        self.recent.append(message_id)
        self.last.append(order)


class FileTail(threading.Thread):
    """Passes on the complete lines of a growing file until `finish`, which returns after the last line."""

    def __init__(self, path: Path, on_line: Callable[[bytes], None]) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._on_line = on_line
        self._finish = threading.Event()

    def run(self) -> None:
        while not self._path.exists():
            if self._finish.wait(TAIL_PAUSE_SECONDS):
                return
        with self._path.open("rb", buffering=0) as file:
            rest, last = b"", False
            while True:
                data = file.read(256 * 1024)
                if data:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._on_line(line)
                elif last:
                    return
                else:
                    last = self._finish.wait(TAIL_PAUSE_SECONDS)

    def finish(self) -> None:
        self._finish.set()
        self.join(timeout=30)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one pipeline."""

    pipeline: str
    published: int
    rolled_back: int
    delivered: int
    missing: int
    out_of_order: int
    duplicates: int
    uncommitted: int
    """Delivered although it was rolled back, or never published."""
    altered: int
    """Delivered with different content, or unreadable."""
    p50_ms: float
    p99_ms: float

    @property
    def right(self) -> bool:
        wrong = self.missing or self.out_of_order or self.uncommitted or self.altered
        return self.published > 0 and not wrong


def judge(ledger: Ledger, arrivals: Arrivals) -> Verdict:
    """Compares what was committed with what arrived; times are from sending COMMIT to the arrival of the line."""
    committed, first = ledger.committed, arrivals.first
    delivered = committed.keys() & first.keys()
    latencies = sorted(first[message_id][1] - committed[message_id][1] for message_id in delivered)
    return Verdict(
        pipeline=arrivals.pipeline,
        published=len(committed),
        rolled_back=len(ledger.rolled_back),
        delivered=len(delivered),
        missing=len(committed.keys() - first.keys()),
        out_of_order=arrivals.out_of_order,
        duplicates=arrivals.duplicates,
        uncommitted=len(first.keys() - committed.keys()),
        altered=arrivals.unreadable + sum(first[i][0] != committed[i][0] for i in delivered),
        p50_ms=percentile(latencies, 0.50) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
    )


def recent_p50_ms(ledger: Ledger, arrivals: Arrivals) -> float:
    """Of the last few hundred arrivals."""
    ids = [message_id for message_id in list(arrivals.recent) if message_id in ledger.committed]
    return percentile(sorted(arrivals.first[i][1] - ledger.committed[i][1] for i in ids), 0.5) * 1000


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
