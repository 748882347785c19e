"""How a client of Kafka connects: what the sink and the source share.

librdkafka connects in the background and retries indefinitely; errors reach us through its error callback alone.
`connect` waits until a broker has answered, and otherwise says why none did.
"""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from relay.backends.common.deadline import is_over, left
from relay.backends.kafka.errors import ERRORS, error_text
from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.masking import mask

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

Client = TypeVar("Client")

# How long the first question to a client that is not connected yet may block: then its errors are looked at, and the
# next may block twice as long, as an answer may take longer than that on its way.
_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 1.6
# A topic that every cluster has. Asking for one topic is cheap, asking for all of a large cluster is not.
_ANY_TOPIC = "__consumer_offsets"


class Troubles:
    """What the client complained of by its error callback, which any thread that asks the client something may run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[KafkaError] = []

    def __call__(self, error: "KafkaError") -> None:
        with self._lock:
            # That all brokers are down says less than what came before it; what an operator must fix says most.
            self._all = [*self._all[-9:], error]

    def forget(self) -> None:
        with self._lock:
            self._all = []

    @property
    def gravest(self) -> "KafkaError | None":
        """What an operator must fix; else the last that says something; None when there was nothing."""
        with self._lock:
            seen = list(self._all)
        for error in reversed(seen):
            if _needs_operator(error):
                return error
        telling = [error for error in seen if error.name() != "_ALL_BROKERS_DOWN"]
        return telling[-1] if telling else seen[-1] if seen else None

    @property
    def is_final(self) -> bool:
        """Waiting longer will not connect us."""
        with self._lock:
            return any(e.name() == "_ALL_BROKERS_DOWN" or _needs_operator(e) for e in self._all)


def _needs_operator(error: "KafkaError") -> bool:
    return ERRORS.verdict(error).code in ERRORS.needs_operator


def connect(
    make: Callable[[dict[str, Any]], Client],
    options: dict[str, Any],
    where: str,
    deadline: float,
    troubles: Troubles | None = None,
) -> Client:
    """A client that some broker has answered. Raises ConfigError or NotConnected, and leaves nothing behind.

    `troubles` gets what the client complains of; what it complained of before it was connected is forgotten.
    """
    try:
        from confluent_kafka import KafkaException
    except ImportError as error:
        raise MissingExtra("kafka", "kafka") from error

    troubles = troubles or Troubles()
    seconds, look_seconds = left(deadline), _LOOK_SECONDS
    try:
        client: Any = make(options | {"error_cb": troubles, "logger": logging.getLogger("librdkafka")})
    except KafkaException as error:
        # A file that cannot be read, an unknown key of librdkafka: it says which.
        raise ConfigError(mask(f"{where}: {error_text(error.args[0])}")) from None
    while True:
        try:
            client.list_topics(_ANY_TOPIC, timeout=min(look_seconds, left(deadline)))
        except KafkaException as error:
            client.poll(0)
            if not troubles.is_final and not is_over(deadline):
                look_seconds = min(2 * look_seconds, _LONGEST_LOOK_SECONDS)
                continue
            known = troubles.gravest
            if known is not None:
                raise ERRORS.translated(known, where, opening=True) from None
            text = f"{where}: no broker of {options['bootstrap.servers']} answered within {seconds:.1f} s"
            raise NotConnected(mask(f"{text} ({error_text(error.args[0])})"), code="timeout") from None
        else:
            troubles.forget()
            found: Client = client
            return found
