"""A batch whose records wait for confirmation: which of them failed, and which record the others wait for."""

from collections.abc import Iterable

from relay.errors import NotConnected
from relay.models import Failure


class Batch:
    """Of one `publish`. What is not named in `failures` was delivered. One thread at a time."""

    def __init__(self, size: int) -> None:
        self.failures: dict[int, Failure] = {}
        """By the index of the record."""
        self.blocked_by: int | None = None
        """The first record that failed for now: nothing later needs to be sent, because the caller sends it again."""
        self._size = size

    def add(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            self.failures[failure.index] = failure
            if not failure.permanent and (self.blocked_by is None or failure.index < self.blocked_by):
                self.blocked_by = failure.index

    def fail(self, index: int, permanent: bool, code: str, reason: str) -> None:
        self.add((Failure(index, permanent, code, reason),))

    def hold_back(self, indexes: Iterable[int]) -> None:
        """These were not sent. A failure of theirs that is known stays."""
        reason = "there was no time left for it" if self.blocked_by is None else f"waits for record {self.blocked_by}"
        for index in indexes:
            self.failures.setdefault(index, Failure(index, False, "not_sent", reason))

    def hold_back_from(self, begin: int) -> None:
        self.hold_back(range(begin, self._size))

    @property
    def standstill(self) -> Failure | None:
        """What blocks the batch, if the caller will send all of it again: nothing of it was delivered, and its first
        record was not refused permanently. That later ones were is found again.
        """
        if not self.failures or len(self.failures) < self._size or self.failures[0].permanent:
            return None
        return self.failures[0 if self.blocked_by is None else self.blocked_by]

    def result(self) -> list[Failure]:
        """What `publish` returns."""
        return [self.failures[index] for index in sorted(self.failures)]

    def result_unless_stuck(self, where: str) -> list[Failure]:
        """`result`; raises NotConnected at a standstill, because opening again looks at the destination."""
        failure = self.standstill
        if failure is not None:
            raise NotConnected(f"{where}: {failure.reason}", code=failure.code)
        return self.result()
