"""The partitions of our topics: which there are, of which topic, and what each holds. Nothing is kept here."""

import re
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition

from relay.backends.common.deadline import is_over, left
from relay.backends.kafka.config import KafkaSourceConfig, connection_options
from relay.backends.kafka.errors import ERRORS
from relay.backends.kafka.topic_ids import topic_ids
from relay.backends.kafka.topics import FEW_TOPICS
from relay.backends.source import Lane
from relay.errors import ConfigError

Place = tuple[str, int]
"""Topic and partition."""


class Bounds(NamedTuple):
    """Of what a partition holds."""

    low: int
    """The offset of the first record."""
    high: int
    """The offset after the last record that may be read."""


class Partitions:
    """Asks the brokers, on the connection of a consumer. Raises KafkaException; ConfigError if a topic is missing."""

    def __init__(self, config: KafkaSourceConfig, pipeline: str, where: str, consumer: Any, lane: Lane) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = where
        self._consumer = consumer
        self._lane = lane

    def places(self, deadline: float) -> list[Place]:
        """Every partition of our topics that our lane reads."""
        patterns = [re.compile(name) for name in self._config.topic if name.startswith("^")]
        names = [name for name in self._config.topic if not name.startswith("^")]
        everything: dict[str, Any] = {}
        if patterns or len(names) > FEW_TOPICS:
            everything = self._consumer.list_topics(timeout=left(deadline)).topics
        found = {n: t for n, t in everything.items() if any(pattern.fullmatch(n) for pattern in patterns)}
        for name in names:
            # One that is not among all of them says why if it is asked for.
            known = everything.get(name) or self._consumer.list_topics(name, timeout=left(deadline)).topics[name]
            if known.error is not None and ERRORS.verdict(known.error).code == "no_topic":
                advice = f"kafka-topics.sh --create --topic {name} --bootstrap-server {self._config.brokers}"
                raise ConfigError(f"{self._where}: topic {name!r} does not exist: create it ({advice})")
            if known.error is not None:
                raise KafkaException(known.error)
            found[name] = known
        every = [(name, number) for name, topic in sorted(found.items()) for number in sorted(topic.partitions)]
        return [place for place in every if self._is_ours(place)]

    def _is_ours(self, place: Place) -> bool:
        """Neighbours have different lanes, also the single partitions of many topics."""
        topic, number = place
        return (zlib.crc32(topic.encode()) + number) % self._lane.lanes == self._lane.number

    def bounds(self, places: list[Place], deadline: float) -> dict[Place, Bounds]:
        """What each partition holds. Two requests to each broker, however many partitions it leads."""
        low, high = (self._offsets(places, end, deadline) for end in (OFFSET_BEGINNING, OFFSET_END))
        return {place: Bounds(low[place], high[place]) for place in places}

    def _offsets(self, places: list[Place], end: int, deadline: float) -> dict[Place, int]:
        asked = [TopicPartition(*place, end) for place in places]
        while asked:
            try:
                found = self._consumer.offsets_for_times(asked, timeout=left(deadline))
                for at in found:
                    if at.error is not None:
                        raise KafkaException(at.error)
            except KafkaException as error:
                # A partition has no leader for the moment, as after it was created, or when a broker ended.
                if ERRORS.verdict(error.args[0]).code != "unavailable" or is_over(deadline):
                    raise
                self._consumer.poll(0.05)
            else:
                return {(at.topic, at.partition): at.offset for at in found}
        return {}

    def topic_ids(self, places: Iterable[Place], deadline: float) -> dict[str, str]:
        options = connection_options(self._config, self._pipeline)
        return topic_ids(options, (topic for topic, _ in places), deadline)
