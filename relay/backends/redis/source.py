"""The Redis source: a consumer group of one stream, acknowledged after the rows are committed.

What it reads, in this order: what its consumer received before and did not acknowledge, with whatever was claimed from
consumers that have fallen silent, by entry id; then new entries. All workers of a pipeline are the same consumer, so
that one goes on where another stopped, at once.

A group that is gone (the stream was deleted, Redis came back empty) is created again from the stream's beginning: no
record is left of which entries were never received, and the inbox knows the others by their event ids. The position
that is stored with the rows says only that there was a group before.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from relay.backends.common.deadline import in_ms
from relay.backends.redis.config import RedisSourceConfig
from relay.backends.redis.entry import Fields, bare, received, size_of
from relay.backends.redis.errors import ERRORS
from relay.backends.source import Source, SourceFeatures
from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.models import Received

if TYPE_CHECKING:
    from relay.backends.redis.connection import Command, RedisLink

_log = logging.getLogger(__name__)

# Redis knows no limit in bytes: how many entries to ask for is guessed from the largest that came, few at first, and
# never so many that a sudden run of entries of 1 MiB would be too much.
_FIRST_COUNT = 4
_GROWTH = 4
_LARGEST_COUNT = 32
_ANSWER_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 8 * 1024 * 1024
_IDS_AT_ONCE = 1000
_BEGINNING = b"0"

Entry = tuple[bytes, Fields | None]
"""Id and fields; None for an entry that was deleted after it had been received."""

Taken = tuple[bytes, Fields]
"""One that is there."""


class RedisSource(Source[RedisSourceConfig, Taken]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        keeps_headers=True, keeps_key=True, needs_source=True, needs_credentials=True
    )
    config_model = RedisSourceConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: RedisSourceConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: Redis stream {self._config.stream!r}"
        self._body_field = self._config.body_field.encode() if self._config.body_field else None
        self._link: RedisLink | None = None
        self._had_group = False
        self._pending_after: bytes | None = None
        """Received before and not acknowledged: those above this id are still to be looked at; None: all were."""
        self._held: set[bytes] = set()
        """Handed out and not acknowledged."""
        self._off_the_list: set[bytes] = set()
        """Of those, what the server has taken off its list of pending entries: it will not give them again."""
        self._next_claim = 0.0
        self._count = _FIRST_COUNT

    def open(self, positions: Mapping[str, str]) -> None:
        try:
            from relay.backends.redis.connection import RedisLink
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        self.close()
        config = self._config
        # What a lane leaves that is there no more is claimed by the others.
        self._consumer = (config.consumer or self._pipeline) + (f"/{self.lane.number}" if self.lane.number else "")
        link = RedisLink(config, self._where, self._pipeline)
        try:
            deadline = self._deadline()
            link.open(deadline)
            self._make_group(link, deadline, again=self._had_group or config.stream in positions)
        except BaseException:
            link.close()
            raise
        self._link, self._had_group = link, True
        # Else a group that begins later than the stream, and is lost before anything came, would begin there again.
        self.begun = {} if config.stream in positions or config.start == "0" else {config.stream: "0-0"}
        self._next_claim, self._count = 0.0, _FIRST_COUNT

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Taken]:
        link = self._opened()
        ends = time.monotonic() + wait_seconds
        while True:
            if time.monotonic() >= self._next_claim:
                self._claim(link)
            batch = self._pending(link, max_messages) or self._new(link, max_messages, ends)
            if batch or time.monotonic() >= ends:
                self._held.update(entry_id for entry_id, _ in batch)
                return batch

    def convert(self, message: Taken) -> Received:
        entry_id, fields = message
        return received(self._config.stream, entry_id, fields, self._body_field)

    def bare(self, message: Taken) -> Received:
        entry_id, fields = message
        return bare(self._config.stream, entry_id, fields)

    def ack(self, received: Sequence[Received]) -> None:
        link = self._opened()
        ids = [message.token for message in received]
        self._off_the_list.difference_update(ids)  # stored, whatever becomes of the acknowledgement
        self._acknowledge(link, ids)
        self._held.difference_update(ids)

    def release(self) -> None:
        """Nothing to give back: the next worker is the same consumer, and begins with what this one left."""
        self._say_gone(sorted(self._off_the_list))
        self._pending_after = _BEGINNING
        self._held.clear()
        self._off_the_list.clear()

    def close(self) -> None:
        self.release()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    # What there is to read ------------------------------------------------------------------------

    def _claim(self, link: "RedisLink") -> None:
        """Makes ours what other consumers left; it is then read with what is pending, in the order of ids."""
        config = self._config
        self._next_claim = time.monotonic() + config.claim_idle_ms / 1000
        cursor = b"0-0"
        while True:
            command = ("XAUTOCLAIM", config.stream, config.group, self._consumer, config.claim_idle_ms, cursor)
            answer = self._ask(link, self._deadline(), *command, "COUNT", _IDS_AT_ONCE, "JUSTID")
            # Before Redis 7 there is no third element: what is gone stays on the list, and is found when it is read.
            cursor, ids, gone = answer[0], answer[1], answer[2] if len(answer) > 2 else []
            self._say_gone([entry_id for entry_id in gone if entry_id not in self._held])
            self._off_the_list.update(self._held.intersection(gone))
            if not self._held.issuperset(ids):
                self._pending_after = _BEGINNING
            if cursor == b"0-0":
                return

    def _pending(self, link: "RedisLink", max_messages: int) -> list[Taken]:
        batch: list[Taken] = []
        size = 0
        while self._pending_after is not None and len(batch) < max_messages and size < _BATCH_BYTES:
            count = min(self._count, max_messages - len(batch))
            entries = self._read(link, count, self._pending_after, None)
            self._pending_after = entries[-1][0] if entries else None
            size += self._take(link, entries, batch)
        return batch

    def _new(self, link: "RedisLink", max_messages: int, ends: float) -> list[Taken]:
        batch: list[Taken] = []
        size = 0
        while len(batch) < max_messages and size < _BATCH_BYTES:
            now = time.monotonic()
            wait_ms = 0 if batch else int((min(ends, max(self._next_claim, now)) - now) * 1000)
            count = min(self._count, max_messages - len(batch))
            entries = self._read(link, count, b">", wait_ms if wait_ms > 0 else None)
            size += self._take(link, entries, batch)
            if len(entries) < count:
                break
        return batch

    def _read(self, link: "RedisLink", count: int, after: bytes, wait_ms: int | None) -> list[Entry]:
        config = self._config
        # BLOCK 0 would wait without end.
        wait = () if wait_ms is None else ("BLOCK", wait_ms)
        deadline = self._deadline() + (wait_ms or 0) / 1000
        command = ("XREADGROUP", "GROUP", config.group, self._consumer, "COUNT", count, *wait)
        answer = self._ask(link, deadline, *command, "STREAMS", config.stream, after)
        return answer[0][1] if answer else []

    def _take(self, link: "RedisLink", entries: Iterable[Entry], batch: list[Taken]) -> int:
        """Adds them to the batch, but for those that were handed out already; gives how many bytes that were."""
        gone: list[bytes] = []
        sizes: list[int] = []
        for entry_id, fields in entries:
            if entry_id in self._held:
                continue
            if fields is None:
                gone.append(entry_id)
            else:
                sizes.append(size_of(fields))
                batch.append((entry_id, fields))
        self._say_gone(gone)
        self._acknowledge(link, gone)
        if sizes:
            self._count = max(1, min(self._count * _GROWTH, _LARGEST_COUNT, _ANSWER_BYTES // max(1, *sizes)))
        return sum(sizes)

    def _say_gone(self, ids: Sequence[bytes]) -> None:
        if ids:
            _log.warning(
                "%s: %d entries were deleted or trimmed before they were stored, the first is %s",
                self._where, len(ids), ids[0].decode(),
            )  # fmt: skip

    # Questions to the server ----------------------------------------------------------------------

    def _make_group(self, link: "RedisLink", deadline: float, *, again: bool) -> None:
        from redis.exceptions import ResponseError

        config = self._config
        # A stream that was there before is lost, not misspelt: it comes back when its producer does.
        made = ("MKSTREAM",) if config.create_stream or again else ()
        start = "0" if again else config.start
        try:
            link.ask(config.stream, "XGROUP", "CREATE", config.stream, config.group, start, *made, deadline=deadline)
        except ResponseError as error:
            if str(error).startswith("BUSYGROUP"):
                return
            if ERRORS.verdict(error).code == "no_stream":
                raise ConfigError(
                    f"{self._where}: there is no such stream; add an entry to it, or set create_stream to true"
                ) from error
            raise link.translated(error, opening=True) from error
        if again:
            _log.warning(
                "%s: group %r was gone; it begins again at the start of the stream. Redis does not tell whether the "
                "stream is another one now: entries whose ids are known count as stored",
                self._where, config.group,
            )  # fmt: skip

    def _acknowledge(self, link: "RedisLink", ids: Sequence[bytes]) -> None:
        from redis.exceptions import ResponseError

        config = self._config
        parts = [ids[begin : begin + _IDS_AT_ONCE] for begin in range(0, len(ids), _IDS_AT_ONCE)]
        commands: list[Command] = [("XACK", config.stream, config.group, *part) for part in parts]
        for answer in link.exchange(config.stream, commands, self._deadline()) if commands else ():
            if isinstance(answer, ResponseError):
                raise link.translated(answer) from answer

    def _ask(self, link: "RedisLink", deadline: float, *command: str | bytes | int) -> Any:
        from redis.exceptions import ResponseError

        try:
            return link.ask(self._config.stream, *command, deadline=deadline)
        except ResponseError as error:
            raise link.translated(error) from error

    def _opened(self) -> "RedisLink":
        if self._link is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        return self._link

    def _deadline(self) -> float:
        return in_ms(self._config.timeout_ms)
