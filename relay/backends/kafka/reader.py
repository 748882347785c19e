"""One consumer, and where it stands in each partition. After an error, make a new one.

Where a partition begins: after the position that PostgreSQL holds, if that is of this topic and not of one that had its
name before. Without one, where the group's committed offset says, but only if the pipeline names the group, or with
`latest`. Else, if other partitions of its topic have positions, it is new, or was empty so far, and begins at its
beginning; so does a topic of a pattern that was read before. Of all others `auto_offset_reset` decides. What `latest`
meant, and which patterns were read, becomes a position (`begun`), so that it holds over a restart.
"""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from relay.backends.common.deadline import in_ms, left
from relay.backends.kafka.client import Troubles, connect
from relay.backends.kafka.config import KafkaSourceConfig, consumer_options
from relay.backends.kafka.errors import ERRORS, error_text
from relay.backends.kafka.partitions import Bounds, Partitions, Place
from relay.backends.kafka.positions import Position, Suffixes
from relay.backends.source import Lane
from relay.errors import ConfigError, NotConnected

_LAST_COMMIT_SECONDS = 0.3

_READ = "read"
"""The position of a pattern: that its topics were looked up before."""

log = structlog.get_logger(__name__)


class KafkaReader:
    """Connects when made: raises NotConnected or ConfigError. One thread at a time."""

    def __init__(self, config: KafkaSourceConfig, pipeline: str, where: str, lane: Lane) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = where
        self._commits = Commits(pipeline)
        options = consumer_options(config, pipeline) | {"on_commit": self._commits}
        self._troubles = Troubles()
        self._consumer: Any = connect(Consumer, options, where, in_ms(config.timeout_ms), self._troubles)
        self._partitions = Partitions(config, pipeline, where, self._consumer, lane)
        self._next: dict[Place, int] = {}
        """The offset after what is done, of every partition that we read; OFFSET_BEGINNING when nothing is."""
        self._topics: dict[Place, Position] = {}
        """Of which topic each partition is; the offset in it means nothing."""
        self.suffixes: dict[str, Suffixes] = {}
        """By the names of partitions."""
        self.begun: dict[str, str] = {}
        """Positions to be stored although nothing was received."""
        self._resting = True
        self._refresh_at = 0.0

    def begin(self, positions: Mapping[str, str]) -> None:
        """Raises ConfigError when a topic is missing, or what should come next is gone."""
        deadline = in_ms(self._config.timeout_ms)
        try:
            places = self._partitions.places(deadline)
            stored = {place: Position.parse(positions[_name(place)]) for place in places if _name(place) in positions}
            again = self._recreated(places, stored, deadline)
            known = {place: stored[place].offset + 1 for place in stored if place not in again}
            bounds = self._partitions.bounds(places, deadline)
            self._next = {place: self._checked(place, offset, *bounds[place]) for place, offset in known.items()}
            self._next |= self._begun_again(again, bounds)
            self._next |= self._first([place for place in places if place not in stored], positions, bounds, deadline)
        except KafkaException as error:
            raise ERRORS.translated(error.args[0], self._where, opening=True) from None
        self._refresh_at = time.monotonic() + self._config.refresh_ms / 1000

    def read(self, max_messages: int, wait_seconds: float) -> list[Message]:
        """The next messages as soon as there are any. Raises NotConnected."""
        try:
            if self._resting:
                self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._next.items()])
                self._resting = False
            elif time.monotonic() >= self._refresh_at:
                self._refresh()
            messages = self._consumer.consume(max_messages, 0)
            if not messages:
                messages = self._consumer.consume(1, wait_seconds)
                if messages and max_messages > 1:
                    messages += self._consumer.consume(max_messages - 1, 0)
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None
        if any(message.error() is not None for message in messages):
            # Those before the error are lost with the connection, and come again.
            raise self._trouble(message.error() for message in messages)
        if not messages and self._troubles.is_final:
            raise self._trouble([])
        return messages  # type: ignore[no-any-return]

    def done(self, positions: Mapping[str, int]) -> None:
        """Everything up to these positions is committed in PostgreSQL: the group is told later, in the background."""
        places = {_place(name): offset + 1 for name, offset in positions.items()}
        moved = {place: offset for place, offset in places.items() if offset > self._next.get(place, offset)}
        self._next |= moved
        self._tell_group(moved)

    def passed(self) -> dict[str, str]:
        """Positions behind the last messages, if nothing is left to hand out before them.

        What ends a transaction, and each record of one that was aborted, has an offset and is no message. Were the
        position before it, it would look like a message that was removed unread as soon as it is removed.
        """
        if self._resting:
            return {}
        at = self._consumer.position([TopicPartition(*place) for place in self._next])
        ends = {(found.topic, found.partition): int(found.offset) for found in at if found.offset >= 0}
        passed = {place: end for place, end in ends.items() if end > self._next[place]}
        self._next |= passed
        self._tell_group(passed)
        return {_name(place): str(self._topics[place]._replace(offset=end - 1)) for place, end in passed.items()}

    def _tell_group(self, moved: Mapping[Place, int]) -> None:
        if moved:
            offsets = [TopicPartition(*place, offset) for place, offset in moved.items()]
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
                self._commits.on_the_way += 1
            except KafkaException as error:
                self._commits.failed(error.args[0])

    def release(self) -> None:
        """Drops what was fetched; the next read goes on after what is done."""
        if not self._resting:
            self._consumer.unassign()
            self._resting = True

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.unassign()
            deadline = time.monotonic() + _LAST_COMMIT_SECONDS
            while self._commits.on_the_way > 0 and time.monotonic() < deadline:
                self._consumer.poll(0.01)
            # Its own `close` would ask a server that may not answer; without, its last reference ends it at once.
            self._consumer = None
            del self._partitions  # which has it too

    def _recreated(self, places: list[Place], stored: Mapping[Place, Position], deadline: float) -> list[Place]:
        """Partitions whose positions are of an earlier topic. Raises ConfigError, unless `on_gap` lets it go on."""
        ids = self._partitions.topic_ids(places, deadline)
        again = [place for place, position in stored.items() if _differs(position.topic_id, ids.get(place[0], ""))]
        for place in places:
            position = stored.get(place, Position(0))
            topic_id = ids.get(place[0], position.topic_id)
            self._know(place, Position(0, topic_id, position.recreated or place in again))
        for topic in dict.fromkeys(topic for topic, _ in again):
            gap = f"topic {topic!r} was deleted and recreated (its id is {ids[topic]})"
            if self._config.on_gap == "error":
                raise ConfigError(
                    f"{self._where}: {gap}; messages of the old one may be lost; to read the new one from its "
                    'beginning, set on_gap to "continue"'
                )
            log.error("messages may be missing", pipeline=self._pipeline, gap=gap, goes_on_at="its beginning")
        return again

    def _begun_again(self, places: list[Place], bounds: Mapping[Place, Bounds]) -> dict[Place, int]:
        """At the beginning of a recreated topic. The new position holds even if nothing comes for a while."""
        for place in places:
            self._remember(place, bounds[place].low)
        return {place: bounds[place].low for place in places}

    def _remember(self, place: Place, offset: int) -> None:
        self.begun[_name(place)] = str(self._topics[place]._replace(offset=offset - 1))

    def _know(self, place: Place, topic: Position) -> None:
        self._topics[place] = topic
        self.suffixes[_name(place)] = topic.suffixes

    def _first(
        self, places: list[Place], positions: Mapping[str, str], bounds: Mapping[Place, Bounds], deadline: float
    ) -> dict[Place, int]:
        """Where to begin in partitions without a position."""
        config = self._config
        begun: dict[Place, int] = {}
        if places and (config.group_id is not None or config.auto_offset_reset == "latest"):
            asked = [TopicPartition(*place) for place in places]
            stored = self._consumer.committed(asked, timeout=left(deadline))
            begun = {(at.topic, at.partition): at.offset for at in stored if at.error is None and at.offset >= 0}
        met = {topic for topic, _ in self._next} | {topic for topic, _ in begun}
        met |= self._added(places, positions, met if config.auto_offset_reset == "latest" else set())
        latest: dict[Place, int] = {}
        for place in places:
            if place in begun:
                continue
            if place[0] in met or config.auto_offset_reset == "earliest":
                begun[place] = bounds[place].low
            elif config.auto_offset_reset == "latest":
                begun[place] = latest[place] = bounds[place].high
            else:
                raise ConfigError(
                    f"{self._where}: nothing says where to begin in {_name(place)}: set auto_offset_reset to earliest "
                    "or latest, or name a group_id that has committed offsets"
                )
        if latest:
            offsets = [TopicPartition(*place, offset) for place, offset in latest.items()]
            self._consumer.commit(offsets=offsets, asynchronous=False)
            for place, offset in latest.items():
                self._remember(place, offset)
        return begun

    def _added(self, places: list[Place], positions: Mapping[str, str], met: set[str]) -> set[str]:
        """Topics of patterns that were read before, by a position of their own or of one of their topics."""
        before = met | {name.rpartition("/")[0] for name in positions if "/" in name}
        added: set[str] = set()
        for name in self._config.topic:
            if name.startswith("^"):
                matches = re.compile(name).fullmatch
                if name in positions or any(map(matches, before)):
                    added.update(topic for topic, _ in places if topic not in self._config.topic and matches(topic))
                if name not in positions:
                    self.begun[name] = _READ
        return added

    def _checked(self, place: Place, offset: int, low: int, high: int) -> int:
        """The offset, if it can be read from; else what `on_gap` says."""
        if low <= offset <= high:
            return offset
        gap = f"{_name(place)} holds offsets {low} to {high}, and {offset} was to come next: "
        gap += "messages were removed unread" if offset < low else "the topic was recreated, or lost messages"
        if self._config.on_gap == "error":
            raise ConfigError(f'{self._where}: {gap}; to go on at {low}, set on_gap to "continue"')
        log.error("messages are missing", pipeline=self._pipeline, gap=gap, goes_on_at=low)
        return low

    def _refresh(self) -> None:
        """Looks for new partitions and topics. What goes wrong shows elsewhere, or the next time."""
        # A broker answers one request of a connection after the other, so each waits for the fetch before it.
        deadline = time.monotonic() + min(5.0, self._config.timeout_ms / 1000)
        self._refresh_at = time.monotonic() + self._config.refresh_ms / 1000
        try:
            places = self._partitions.places(deadline)
            ids = self._partitions.topic_ids(places, deadline)
        except (KafkaException, ConfigError) as error:
            log.warning("cannot look for new partitions", pipeline=self._pipeline, error=str(error))
            return
        for place, topic in self._topics.items():
            topic_id = ids.get(place[0], "")
            if _differs(topic.topic_id, topic_id):
                raise NotConnected(f"{self._where}: topic {place[0]!r} was deleted and recreated", code="no_topic")
            if topic_id and not topic.topic_id:
                self._know(place, topic._replace(topic_id=topic_id))
        new = [place for place in places if place not in self._next]
        for place in new:
            self._know(place, Position(0, ids.get(place[0], "")))
        if new:
            # New while we read: from its beginning, whatever is said of the topics that were there at first.
            self._consumer.incremental_assign([TopicPartition(*place, OFFSET_BEGINNING) for place in new])
            self._next |= dict.fromkeys(new, OFFSET_BEGINNING)

    def _trouble(self, errors: Iterable[KafkaError | None]) -> NotConnected:
        gravest = next((error for error in errors if error is not None), None) or self._troubles.gravest
        return ERRORS.lost(gravest, self._where) if gravest else NotConnected(f"{self._where}: connection lost")


class Commits:
    """Hears what became of commits to the group. Nothing depends on them but what lag tools show."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self.on_the_way = 0

    def __call__(self, error: KafkaError | None, _offsets: list[TopicPartition]) -> None:
        self.on_the_way -= 1
        if error is not None:
            self.failed(error)

    def failed(self, error: KafkaError) -> None:
        log.warning("offsets were not committed to the group", pipeline=self._pipeline, error=error_text(error))


def _differs(known: str, found: str) -> bool:
    return bool(known and found) and known != found


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _place(name: str) -> Place:
    topic, _, number = name.rpartition("/")
    return topic, int(number)
