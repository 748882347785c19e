"""The id of a topic (KIP-516), by which it differs from one of the same name that was there before.

A look at it must not hold up a pipeline: only the controller answers this question of librdkafka's, and a cluster may
have none for a while. What was known then stays, and the next look comes with the next refresh.
"""

import time
from collections.abc import Iterable
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from relay.backends.common.deadline import left
from relay.backends.kafka.errors import ERRORS, error_text

log = structlog.get_logger(__name__)

_NO_ID = "A" * 22
"""What a broker without topic ids seems to give: zeros, in base64."""
_AS_SHOWN = str.maketrans("+/", "-_")
"""Kafka's own tools show ids like this."""
_LONGEST_SECONDS = 5.0
_PAUSE_SECONDS = 30.0
_LONG_PAUSE_SECONDS = 600.0
_ask_again_at: dict[str, float] = {}
"""By the brokers of a cluster that did not answer, or has no ids."""


def topic_ids(options: dict[str, Any], topics: Iterable[str], deadline: float) -> dict[str, str]:
    """The ids of those topics of which they can be learned now. Raises nothing but bugs."""
    names, brokers = sorted(set(topics)), options["bootstrap.servers"]
    if not names or time.monotonic() < _ask_again_at.get(brokers, 0.0):
        return {}
    pause, reason = _PAUSE_SECONDS, "no answer"
    try:
        found = _described(options, names, min(left(deadline) / 2, _LONGEST_SECONDS))
    except TimeoutError:
        found = {}
    except KafkaException as error:
        found, reason = {}, error_text(error.args[0])
    else:
        if not found or any(found.values()):
            return {name: topic_id for name, topic_id in found.items() if topic_id}
        pause, reason = _LONG_PAUSE_SECONDS, "its topics have no ids"
    _ask_again_at[brokers] = time.monotonic() + pause
    log.warning(
        "a topic that is deleted, recreated and filled again cannot be recognized on these brokers now",
        brokers=brokers,
        reason=reason,
    )
    return {}


def _described(options: dict[str, Any], names: list[str], seconds: float) -> dict[str, str]:
    """Of those that can be seen; empty for one without an id. Raises KafkaException, TimeoutError."""
    admin = AdminClient(options)  # of its own: consumers have no such question; when it goes, so does its connection
    answers = admin.describe_topics(TopicCollection(names), request_timeout=seconds)
    found = {}
    for name, answer in answers.items():
        try:
            topic_id = str(answer.result(seconds + 1).topic_id)
        except KafkaException as error:
            if ERRORS.verdict(error.args[0]).code not in ("no_topic", "forbidden", "unsupported"):
                raise
        else:
            found[name] = "" if topic_id == _NO_ID else topic_id.translate(_AS_SHOWN)
    return found
