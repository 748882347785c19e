"""The topics of a batch: which of them exist, and creating those that do not."""

import re

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from relay.backends.common.deadline import is_over, left
from relay.backends.common.short_cache import cached_if_short
from relay.backends.kafka.config import KafkaSinkConfig
from relay.backends.kafka.errors import ERRORS, error_text
from relay.backends.kafka.producer import KafkaProducer
from relay.masking import mask
from relay.models import Failure

FEW_TOPICS = 5
"""Of more than that, one request for all topics of the cluster is cheaper than one for each."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Topics:
    def __init__(self, config: KafkaSinkConfig, where: str, producer: KafkaProducer) -> None:
        self._config = config
        self._where = where
        self._producer = producer

    def problems(self, topics: set[str], deadline: float) -> dict[str, Failure]:
        """Why nothing can be sent to some of these topics, by topic. Raises NotConnected."""
        found = {}
        if len(topics - self._producer.topics) > FEW_TOPICS:
            self._look_at_all(deadline)
        for topic in topics - self._producer.topics:
            bad = bad_topic(topic)
            problem = Failure(0, True, "bad_topic", bad) if bad else self.check(topic, deadline)
            if problem is not None:
                found[topic] = problem
        return found

    def _look_at_all(self, deadline: float) -> None:
        try:
            everything = self._producer.client.list_topics(timeout=left(deadline)).topics
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None
        # Of what is missing here, `check` says why.
        self._producer.topics |= {name for name, topic in everything.items() if not topic.error and topic.partitions}

    def check(self, topic: str, deadline: float) -> Failure | None:
        """Why nothing can be sent there now, or None. Makes the topic where configured so. Raises NotConnected."""
        try:
            found = self._producer.client.list_topics(topic, timeout=left(deadline)).topics[topic]
            if found.error is None and found.partitions:
                self._producer.topics.add(topic)
                return None
            code = "unavailable" if found.error is None else ERRORS.verdict(found.error).code
            if code != "no_topic":
                return Failure(0, False, code, f"topic {topic!r}: {found.error or 'it has no partitions'}")
            if not self._config.create_topic:
                advice = f"kafka-topics.sh --create --topic {topic} --bootstrap-server {self._config.brokers}"
                reason = f"topic {topic!r} does not exist: create it ({advice}), or set create_topic"
                return Failure(0, False, "no_topic", mask(reason))
            return self._create(topic, deadline)
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None

    def _create(self, topic: str, deadline: float) -> Failure | None:
        config = self._config
        wanted = NewTopic(topic, config.partitions or -1, config.replication_factor or -1)
        admin = AdminClient(self._producer.options)
        try:
            admin.create_topics([wanted], operation_timeout=left(deadline))[topic].result(left(deadline))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                reason = f"topic {topic!r} does not exist, and create_topic failed: {error_text(error.args[0])}"
                return Failure(0, False, ERRORS.verdict(error.args[0]).code, mask(reason))
        # The broker that we ask next may not know of it yet.
        while not is_over(deadline):
            if self._producer.client.list_topics(topic, timeout=left(deadline)).topics[topic].partitions:
                self._producer.topics.add(topic)
                return None
            self._producer.client.poll(0.05)
        return Failure(0, False, "unavailable", f"topic {topic!r} was created and has no partitions yet")


@cached_if_short
def bad_topic(topic: str) -> str | None:
    """Why no topic can have this name."""
    if topic in (".", "..") or not _TOPIC.fullmatch(topic):
        return f"{topic[:250]!r} cannot be the name of a topic: 1 to 249 of A-Z, a-z, 0-9, '.', '_' and '-'"
    return None
