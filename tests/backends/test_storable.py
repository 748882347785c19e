"""Keys and headers of senders that PostgreSQL could not store: base64, so that the message is a row all the same.

Those of Kafka and Redis are in the tests of their sources.
"""

import struct
from typing import Any

import pytest
from amqp.basic_message import Message  # type: ignore[import-untyped]
from nats.aio.msg import Msg

from relay.backends.nats.arrived import Arrived
from relay.backends.rabbitmq.deliveries import Delivery
from relay.backends.sqs.config import SqsSourceConfig
from relay.backends.sqs.message import pack
from relay.backends.sqs.source import SqsSource
from relay.wire.storable import storable_text

NUL = {"type": "a\0b", "plain": "é"}
STORED = {"type": "YQBi", "plain": "é"}


@pytest.mark.parametrize(
    ("text", "stored"),
    [("", ""), ("plain", "plain"), ("é 😀", "é 😀"), ("a\0b", "YQBi"), ("\ud800", "7aCA"), ("é\0", "w6kA")],
)
def test_only_what_cannot_be_stored_changes(text: str, stored: str) -> None:
    assert storable_text(text) == stored


def test_of_rabbitmq() -> None:
    properties: Any = Message(type="a\0b", application_headers={"relay-key": "a\0b", "own": b"\0", "plain": "é"})
    packed = properties._serialize_properties()
    delivery = Delivery("q", 1, "q", struct.pack(">HHQ", 60, 0, 2) + packed, b"{}")
    found = delivery.converted()
    assert (found.key, found.headers) == ("YQBi", STORED | {"own": "AA=="})


def test_of_nats() -> None:
    message = Msg(_client=None, subject="s", reply="r", data=b"{}", headers=dict(NUL))  # type: ignore[arg-type]
    assert Arrived(message, 1, "s/1", "s", "1").converted().headers == STORED


def test_of_sqs() -> None:
    body, attributes = pack(b"{}", "a\0b", NUL)
    source = SqsSource(SqsSourceConfig(queue_url="https://sqs.eu-central-1.amazonaws.com/1/q"), "p")
    found = source.convert({"Body": body, "MessageAttributes": attributes, "MessageId": "m", "ReceiptHandle": "r"})
    assert (found.key, found.headers) == ("YQBi", STORED)
