"""Replays: a pipeline delivers a range of its outbox again. Preview, request, wait, list and cancel them."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from relay.errors import RelayError
from relay.operations.base import Connection, counted, one, rows
from relay.operations.pipelines import require_known, stored_one

POLL_SECONDS = 0.2

State = Literal["waiting", "running", "cancelled", "ended"]


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay, and how far it has come."""

    replay_id: int
    pipeline: str
    from_id: int
    to_id: int
    """Both ends are delivered."""
    next_id: int
    requested_by: str
    requested_at: datetime
    delivered: int
    dead_letters: int
    ended_at: datetime | None
    state: State


@dataclass(frozen=True, slots=True)
class Requested:
    """A replay that was just requested."""

    replay: Replay
    pipeline_enabled: bool
    """A disabled pipeline replays nothing until it is enabled."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a replay would deliver."""

    pipeline: str
    messages: int
    bytes: int
    first_id: int | None
    last_id: int | None
    first_at: datetime | None
    last_at: datetime | None
    dead_letters: int
    """Of the messages."""
    oldest_kept_id: int | None
    """The oldest message that the outbox still keeps; None if it keeps none."""


@dataclass(frozen=True, slots=True)
class Span:
    """What was published in a time."""

    from_id: int
    to_id: int
    oldest_kept_id: int
    oldest_kept_at: datetime

    def is_cut(self, since: datetime | None) -> bool:
        """Whether retention has removed messages of before the oldest one, which may be of that time."""
        return self.oldest_kept_id > 1 and (since is None or since < self.oldest_kept_at)


def span(connection: Connection, pipeline: str, since: datetime | None, until: datetime | None) -> Span:
    """The ids of what was published from `since` on and before `until`, of what is kept and settled.

    Raises ConfigError if there is none, which says what is kept.
    """
    [row] = rows(connection, "replay_span", pipeline=pipeline, since=since, until=until)
    return Span(**row)


def preview(connection: Connection, pipeline: str, from_id: int, to_id: int | None = None) -> Preview:
    """Raises ConfigError for a range that cannot be replayed, as `request` does."""
    [row] = rows(connection, "replay_preview", pipeline=pipeline, from_id=from_id, to_id=to_id)
    return Preview(pipeline, **row)


def request(connection: Connection, pipeline: str, from_id: int, to_id: int | None = None) -> Requested:
    """Has a pipeline deliver these messages again; without `to_id` everything that is settled.

    Raises ConfigError if the pipeline does not exist, or the range cannot be replayed.
    """
    enabled = stored_one(connection, pipeline).enabled
    number = one(connection, "replay_ask", pipeline=pipeline, from_id=from_id, to_id=to_id)
    return Requested(_read(connection, pipeline, number), enabled)


def wait(connection: Connection, replay: Replay, wait_seconds: float) -> Replay:
    """The replay when it has ended. Raises RelayError if it takes longer, is cancelled, or its pipeline is deleted."""
    deadline = time.monotonic() + wait_seconds
    while replay.ended_at is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RelayError(
                f"replay {replay.replay_id} has not ended in {wait_seconds:g} s: {progress(replay)}; it continues. "
                f"See relay replays list {replay.pipeline}, and relay status {replay.pipeline}"
            )
        time.sleep(min(POLL_SECONDS, left))
        replay = _read(connection, replay.pipeline, replay.replay_id)
    if replay.state == "cancelled":
        raise RelayError(f"replay {replay.replay_id} was cancelled: {progress(replay)}")
    return replay


def list_replays(connection: Connection, pipeline: str | None = None) -> list[Replay]:
    """Of one pipeline, or of all. Raises ConfigError if the pipeline does not exist."""
    found = _list(connection, pipeline)
    if not found:
        require_known(connection, pipeline)
    return found


def cancel(connection: Connection, replay_id: int) -> bool:
    """Ends a replay after its current batch. False if it had ended. Raises ConfigError if it does not exist."""
    return bool(one(connection, "replay_cancel", replay_id=replay_id))


def progress(replay: Replay) -> str:
    """How far a replay has come, for people."""
    return f"{replay.delivered} delivered, {counted(replay.dead_letters, 'dead letter')}"


def _read(connection: Connection, pipeline: str, replay_id: int) -> Replay:
    for replay in _list(connection, pipeline):
        if replay.replay_id == replay_id:
            return replay
    raise RelayError(f"replay {replay_id} is gone: pipeline {pipeline} was deleted")


def _list(connection: Connection, pipeline: str | None) -> list[Replay]:
    return [Replay(**row, state=_state(row)) for row in rows(connection, "replay_list", pipeline=pipeline)]


def _state(row: dict[str, Any]) -> State:
    if row["ended_at"] is not None:
        return "ended" if row["next_id"] > row["to_id"] else "cancelled"
    return "running" if row["next_id"] > row["from_id"] else "waiting"
