"""Has partitions of outboxes made ahead of need. Asks outboxes that moved, soon, and all others in their turn."""

import time
from collections.abc import Iterable

import structlog

from relay.errors import NotConnected
from scheduler.chores import Pieces, pages
from scheduler.statements import Statements

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.25
# An outbox is known to move by a bell, or by the end of a drain. One that no pipeline reads moves unheard.
MOVED_SECONDS = 1.0
ROUND_SECONDS = 5.0
# Of one question, which takes about a millisecond.
OUTBOXES = 250
# Of one look. Each can wait for publishers, 50 ms for each of its locks.
EXTENSIONS = 4


class Partitions:
    """In one session."""

    def __init__(self, session: Statements) -> None:
        self._session = session
        self._moved: set[str] = set()
        self._needing: dict[str, None] = {}
        """In the order in which they were found."""
        self._after = 0
        self._round_at = self._moved_at = 0.0

    def moved(self, outboxes: Iterable[str]) -> None:
        """Something was published there, as far as is known."""
        self._moved.update(outboxes)

    def look(self) -> Pieces:
        """Asks some outboxes, and makes some partitions."""
        now = time.monotonic()
        if self._moved and now >= self._moved_at:
            self._moved_at = now + MOVED_SECONDS
            moved, self._moved = list(self._moved), set()
            for names in pages(moved, OUTBOXES):
                self._needing |= dict.fromkeys(self._session.outboxes_needing(names))
                yield
        if self._after or now >= self._round_at:
            yield from self._go_round(now)
        for name in list(self._needing)[:EXTENSIONS]:
            self._extend(name)
            yield

    def _go_round(self, now: float) -> Pieces:
        """The next of all. A round takes longer where there are very many; it is never more than a page at a time."""
        if not self._after:
            self._round_at = now + ROUND_SECONDS
        page = self._session.outbox_page(self._after, OUTBOXES)
        self._needing |= dict.fromkeys(page.needing)
        self._after = page.last_id if page.outboxes == OUTBOXES else 0
        yield

    def _extend(self, name: str) -> None:
        """One that a publisher keeps from it is asked again later: behind all others."""
        del self._needing[name]
        try:
            self._session.extend_outbox(name)
        except NotConnected as error:
            if error.code != "locked":
                raise
            self._moved.add(name)
            log.info("partition not made yet, a transaction is in the way", outbox=name, reason=str(error))
