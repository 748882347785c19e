"""Which messages of a batch make a sink raise what it must not: they become dead letters, and their neighbours go on.

A sink raises `NotConnected` and nothing else but bugs. A bug may lie in wait for one message, or be met by all of them.
So the batch is sent again by halves, on a sink that is opened again after each error. A message that raises alone is to
blame if others of its batch were taken. If none was, the sink itself may be at fault: the drain fails and is retried,
and only when that has happened several times in a row is the first message blamed, so that none is retried forever.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from relay.errors import NotConnected, RelayError
from relay.models import Failure, Record
from relay.process.unforeseen import INTERNAL, described, unforeseen

BLAMED_AFTER_DRAINS = 5
"""Drains that failed in a row, after which a message is to blame though none other was taken."""

Take = Callable[[Sequence[Record]], list[Failure]]


class Isolation:
    """Of one batch that made the sink raise `error`.

    `reopen` makes the sink work again: raises RelayError. `may_send` tells whether the lease covers one more publish.
    With `in_order`, nothing is sent after a message that raised: what the sink keeps with its records must not pass it.
    """

    def __init__(
        self,
        records: Sequence[Record],
        take: Take,
        reopen: Callable[[], None],
        may_send: Callable[[], bool],
        *,
        in_order: bool,
    ) -> None:
        self._records = records
        self._take = take
        self._reopen = reopen
        self._may_send = may_send
        self._in_order = in_order
        self._failures: list[Failure] = []
        self._suspects: list[tuple[int, Exception]] = []
        self._taken = 0
        self.sink_works = False
        """Whether the sink may be used again after `run`."""

    def run(self, error: Exception, failed_drains: int) -> list[Failure]:
        """What `publish` should have returned of the batch. Raises nothing."""
        parts = self._divided(range(len(self._records)), error)
        while parts:
            part = parts.pop()
            if (stop := self._send(part, parts)) is not None:
                self._failures.append(stop)
                break
            if self._in_order and self._suspects:
                if parts:
                    self._failures.append(Failure(parts[-1].start, False, INTERNAL, "waits for the one before it"))
                break
        blamed = self._suspects if self._taken else self._suspects[: failed_drains >= BLAMED_AFTER_DRAINS]
        self._failures += [
            unforeseen("publishing", cause, index, message=self._records[index].dedup_id) for index, cause in blamed
        ]
        self._failures += [
            Failure(index, False, INTERNAL, described(cause)) for index, cause in self._suspects[len(blamed) :]
        ]
        return sorted(self._failures, key=lambda failure: failure.index)

    def _send(self, part: range, parts: list[range]) -> Failure | None:
        """Sends one part. Returns why nothing may be sent after it."""
        if not self._may_send():
            return Failure(part.start, False, INTERNAL, "no time was left to find the message that is to blame")
        try:
            if not self.sink_works:
                self._reopen()
                self.sink_works = True
            found = self._take(self._records[part.start : part.stop])
        except RelayError as error:
            self.sink_works = False
            code = error.code if isinstance(error, NotConnected) else INTERNAL
            return Failure(part.start, False, code, str(error))
        except Exception as error:  # noqa: BLE001  what this is for
            self.sink_works = False
            parts += self._divided(part, error)
            return None
        self._taken += len(part) - sum(not failure.permanent for failure in found)
        shifted = [replace(failure, index=failure.index + part.start) for failure in found]
        self._failures += [failure for failure in shifted if failure.permanent]
        return next((failure for failure in shifted if not failure.permanent), None)

    def _divided(self, part: range, error: Exception) -> list[range]:
        """Its halves, the last first; a single record is a suspect."""
        if len(part) == 1:
            self._suspects.append((part.start, error))
            return []
        middle = (part.start + part.stop) // 2
        return [range(middle, part.stop), range(part.start, middle)]
