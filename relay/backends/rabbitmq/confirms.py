"""What became of each message that was published: the bookkeeping of publisher confirms.

RabbitMQ counts the messages of a channel from 1, and answers with those numbers (tags), alone or "all up to here". A
message that no queue takes is returned first, and acknowledged after that.

Messages are known by their dedup id, because knowledge outlives a publish: what is still on its way when the time is up
is not sent again by the next try on the same channel, but waited for. So a slow server costs no duplicates.
"""

from collections.abc import Collection, Iterable, Set
from itertools import takewhile
from typing import NamedTuple


class Outcome(NamedTuple):
    code: str
    """Empty: delivered."""
    reason: str = ""
    permanent: bool = False


DELIVERED = Outcome("")


class Confirms:
    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        """By dedup id."""
        self._last_tag = 0
        self._waiting: dict[int, str] = {}
        self._waiting_ids: set[str] = set()
        self._returned: dict[str, str] = {}

    def waits_for(self, dedup_ids: Set[str]) -> bool:
        """Whether any of these is on its way without an answer."""
        return not self._waiting_ids.isdisjoint(dedup_ids)

    def keep_only(self, dedup_ids: Collection[str]) -> None:
        """Forgets the outcomes of all others."""
        self.outcomes = {known: self.outcomes[known] for known in dedup_ids if known in self.outcomes}

    def knows(self, dedup_id: str) -> bool:
        """Whether it has been sent: it has an outcome, or will have one."""
        return dedup_id in self.outcomes or dedup_id in self._waiting_ids

    def take(self, dedup_id: str) -> Outcome | None:
        """Its outcome. One that will be retried is forgotten."""
        outcome = self.outcomes.get(dedup_id)
        if outcome and outcome.code and not outcome.permanent:
            del self.outcomes[dedup_id]
        return outcome

    def sent(self, dedup_id: str) -> None:
        """To be called in the order in which messages go out, before anything is read."""
        self._last_tag += 1
        self._waiting[self._last_tag] = dedup_id
        self._waiting_ids.add(dedup_id)

    def on_ack(self, tag: int, multiple: bool) -> None:
        for dedup_id in self._answered(tag, multiple):
            reason = self._returned.pop(dedup_id, None)
            self.outcomes[dedup_id] = DELIVERED if reason is None else Outcome("unroutable", reason, permanent=True)

    def on_nack(self, tag: int, multiple: bool) -> None:
        reason = "the queue refused it: it is full (x-overflow: reject-publish), or its server failed"
        for dedup_id in self._answered(tag, multiple):
            self._returned.pop(dedup_id, None)
            self.outcomes[dedup_id] = Outcome("nacked", reason)

    def on_return(self, dedup_id: str, reason: str) -> None:
        self._returned[dedup_id] = reason

    def _answered(self, tag: int, multiple: bool) -> Iterable[str]:
        # Tags stand in `_waiting` in their order; 0 means all.
        tags = list(takewhile(lambda sent: sent <= tag or tag == 0, self._waiting)) if multiple else [tag]
        for one in tags:
            dedup_id = self._waiting.pop(one, None)
            if dedup_id is not None:
                self._waiting_ids.discard(dedup_id)
                yield dedup_id
