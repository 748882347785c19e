"""The outbox source: another database's outbox, read by its horizon, so that nothing of a slow transaction is lost.

It is resumed from the position that is stored with the rows, so each message is a row once. The consumer group over
there is for that database: its retention keeps what the group has not settled.
"""

import contextlib
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import ClassVar

from psycopg.conninfo import make_conninfo

from relay.backends.postgresql.config import OutboxSourceConfig
from relay.backends.postgresql.reader import OutboxReader, join_group
from relay.backends.postgresql.session import connect, errors
from relay.backends.source import Source, SourceFeatures
from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Message, Received
from relay.sql import query
from relay.wire.formats.base import Origin, relay_headers
from relay.wire.json_text import values

# A publisher that is open holds the horizon: its messages come when it commits, which rings no bell.
FIRST_PAUSE_SECONDS = 0.002

# Where publishers ring, a look now and then finds what a bell that was lost would have told.
RUNG_PAUSE_SECONDS = 1.0


class OutboxSource(Source[OutboxSourceConfig, Message]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        has_positions=True,
        keeps_headers=True,
        keeps_key=True,
        needs_source=True,
        needs_credentials=True,
        one_lane="the group of that outbox has one offset",
    )
    config_model = OutboxSourceConfig
    needs_operator = frozenset({"refused"})

    def __init__(self, config: OutboxSourceConfig, pipeline: str) -> None:
        self._config = config
        self._outbox = self._config.outbox
        self._group = self._config.consumer_group or pipeline
        self._where = f"pipeline {pipeline!r}: outbox {self._outbox!r}"
        self._headers = relay_headers(Origin(self._outbox, pipeline, keeps_headers=True))
        self._reader: OutboxReader | None = None
        self._settled = 0
        """Every message up to here is stored."""
        self._handed = 0
        """The last message that was handed out; `_settled` if there was none since."""
        self._after = 0
        """Nothing up to here is left to hand out."""
        # Lets close() come from another thread: it wakes a thread that waits, and waits for one that works.
        self._busy = threading.Lock()
        self._closing = threading.Event()

    def open(self, positions: Mapping[str, str]) -> None:
        self.close()
        with self._busy:
            url = _primary(self._config.postgres_url)
            session = connect(url, self._where, self._config.timeout_ms, "tide-relay outbox source")
            try:
                session.begin_call()
                group = join_group(session, self._outbox, self._group, self._where)
                position, made = positions.get(self._outbox), f"{self._outbox}/made"
                start = group.offset_id if position is None else int(position)
                is_known = positions.get(made) == group.outbox_made
                if position is not None and made in positions and not is_known:
                    raise ConfigError(
                        f"{self._where}: message {start} of an outbox of this name is stored that was dropped: this "
                        "one was created later. Create another pipeline with another event_id, as ids repeat"
                    )
                if start > group.last_id:
                    raise ConfigError(
                        f"{self._where}: message {start} is stored, and the outbox has come to {group.last_id} only: "
                        "it was recreated, or set back. Create another pipeline with another event_id, as ids repeat"
                    )
                with errors(self._where):
                    session.execute(query("source_listen"))
            except BaseException:
                session.close()
                raise
            self._reader = OutboxReader(session, self._outbox, group)
            self._settled = self._handed = self._after = start
            self.begun = {} if is_known else {made: group.outbox_made}

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Message]:
        until = time.monotonic() + wait_seconds
        pause = FIRST_PAUSE_SECONDS
        with self._busy, self._working() as reader:
            while True:
                backlog = reader.peek(self._after, max_messages)
                if backlog.messages:
                    self._after = self._handed = backlog.messages[-1].id
                    return backlog.messages
                self._pass_over(backlog.horizon)
                if wait_seconds > 0 and not reader.is_armed:
                    self._arm(reader)
                    continue
                left = until - time.monotonic()
                if left <= 0:
                    return []
                if backlog.open_publishers:
                    reader.wait(min(left, pause))
                    pause = min(pause * 2, RUNG_PAUSE_SECONDS)
                else:
                    longest = RUNG_PAUSE_SECONDS if reader.is_rung() else self._config.idle_poll_ms / 1000
                    reader.wait(min(left, longest))
                if self._closing.is_set():
                    raise NotConnected(f"{self._where}: closed", code="closed")

    def convert(self, message: Message) -> Received:
        bare = self.bare(message)
        own = {} if message.headers == b"{}" else values(message.headers)
        return bare._replace(headers=self._headers(bare.id, message, own))

    def bare(self, message: Message) -> Received:
        return Received(
            f"{self._outbox}:{message.id}",
            message.payload,
            {},
            message.key,
            self._outbox,
            partition=self._outbox,
            position=str(message.id),
            token=message.id,
        )

    def ack(self, received: Sequence[Received]) -> None:
        if received:
            with self._busy, self._working() as reader:
                self._settled = max(self._settled, *(message.token for message in received))
                reader.settle(self._settled)

    def release(self) -> None:
        with self._busy:
            # Nothing was fetched that was not handed out, so giving back is forgetting.
            self._handed = self._after = self._settled
            if self._reader is not None:
                with contextlib.suppress(NotConnected), self._working() as reader:
                    reader.silence()

    def close(self) -> None:
        self._closing.set()
        reader = self._reader
        if reader is not None:
            with contextlib.suppress(OSError):  # closed by its own thread meanwhile
                reader.wake()
        with self._busy:
            self._closing.clear()
            reader, self._reader = self._reader, None
            if reader is not None:
                with contextlib.suppress(RelayError), errors(self._where):
                    reader.silence()
                reader.close()

    @contextlib.contextmanager
    def _working(self) -> Generator[OutboxReader]:
        """The reader; closed when anything goes wrong with it. Raises NotConnected."""
        reader = self._reader
        if reader is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        try:
            with errors(self._where):
                yield reader
        except BaseException as error:
            self._reader = None
            reader.close()
            if isinstance(error, ConfigError):  # a right was taken away: `open` says so again
                raise NotConnected(str(error), code="refused") from error
            raise

    def _arm(self, reader: OutboxReader) -> None:
        reader.arm()
        if self._after > self._settled == self._handed:  # ids that were rolled back must not hold up retention
            reader.settle(self._after)
            self._settled = self._handed = self._after

    def _pass_over(self, horizon: int) -> None:
        """No message lies between what was handed out and the horizon."""
        self._after = max(self._after, horizon)


def _primary(url: str) -> str:
    """A standby does not show the marks of open publishers, so messages of slow transactions would be lost there."""
    return make_conninfo(url, target_session_attrs="read-write")
