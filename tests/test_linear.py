"""Whatever reads texts of others takes time in proportion to their length: one message must not hold up the rest.

Each reader gets hostile texts of two lengths. Time is that of this thread alone, so other programs do not matter.
"""

import asyncio
import contextlib
import struct
import time
from typing import cast

import psycopg
import pytest
from nats.aio.client import Client

from relay import known_secrets
from relay.backends.kafka.topics import bad_topic
from relay.backends.nats.sink import _subject_problem
from relay.backends.rabbitmq.deliveries import _headers as rabbitmq_headers
from relay.backends.redis import entry as redis_entry
from relay.backends.sqs import message as sqs
from relay.backends.webhook.errors import retry_after_seconds
from relay.backends.webhook.headers import _checked_name
from relay.backends.webhook.signatures import Scheme, Verifier
from relay.backends.webhook.url import UrlTemplate
from relay.errors import RelayError
from relay.masking import REFERENCE, mask, mask_config
from relay.models import Message, Received, Record
from relay.operations.input_lines import Splitter
from relay.operations.json_lines import BadLine, parse_line
from relay.printable import printable, printable_json, printable_lines
from relay.reasons import reason_of
from relay.wire import json_scanner, json_text
from relay.wire.decode import Decoder
from relay.wire.encode import Wire

SMALL, LARGE = 4 * 1024, 256 * 1024
ENOUGH_SECONDS = 0.0005
"""Shorter times say nothing about growth, so the text grows until it takes as long."""
LONGER, MOST_GROWTH = 8, 40
"""A text that many times longer may take that many times as long: linear is 8, and 25 where memory comes from the
kernel page by page, as it does for texts of more than 128 kB; quadratic is 64."""

DEEP_ENVELOPE = '{"version":1,"id":"i","payload":'

SHAPES = {
    "one letter": ("", "a", ""),
    "hyphens": ("", "a-", ""),
    "hyphens before a URL": ("", "a-", " a://b"),
    "blanks": ("", " ", ""),
    "blanks and letters": ("", "password  ", ""),
    "digits": ("", "9", ""),
    "a number in an object": ('{"a":', "9", "}"),
    "brackets": ("", "[", ""),
    "brackets in pairs": ("", "[]", ""),
    "objects": ("", '{"a":', ""),
    "equal names": ("{", '"a":1,', '"a":1}'),
    "names": ("{", '"\\u0061":1,', '"b":1}'),
    "string without end": ('"', "a", ""),
    "escapes without end": ('"', '\\"', ""),
    "lines of labels": ("", "\nDETAIL:  a\nLINE 1: ", ""),
    "backslashes": ('"', "\\", ""),
    "escapes in an object without end": ('{"a":"', '\\n', ""),
    "a broken escape at the end": ('"', "\\u0061", '\\u00"'),
    "surrogates": ('"', "\\ud800", '"'),
    "commas": ("[", ",", "]"),
    "strings": ("[", '"a",', '"a"]'),
    "quotes": ("", '"', ""),
    "deep, then a string without end": (DEEP_ENVELOPE + "[" * 3_000 + '"', '\\"', ""),
    "deep, then many strings without end": (DEEP_ENVELOPE + "[" * 3_000, '"\\', ""),
    "deep in deep": ("{", f'"a":{"[" * 3000}{"]" * 3000},', '"b":1}'),
    "pairs that are not closed": ("", "password='", ""),
    "references": ("", "${env:", ""),
    "schemes": ("", "a://", ""),
    "users": ("a://", "u:", ""),
    "users of many": ("", "nats://u:p", ""),
    "authorizations": ("", "authorization:", ""),
    "percent signs": ("", "%41", ""),
    "entities": ("", "&amp;", ""),
    "base64 of a secret": ("", "c2VjcmV0LXZhbHVl", ""),
    "secrets": ("", "secret-value", ""),
    "secrets, escaped": ("", "%73ecret-value", ""),
    "controls": ("", "\x1b\u202e", ""),
    "dots": ("", "a.", ""),
    "slashes": ("", "/..", "/x"),
    "semicolons": ("", "a=b; ", ""),
    "signatures": ("t=1,", "v1=ab,", "v1=ab"),
    "signatures of Standard Webhooks": ("", "v1,YWI= ", ""),
    "lines": ("", "a\r\n", ""),
    "line ends": ("", "\n", ""),
    "a date": ("Wed, ", "21 Oct ", "2015 07:28:00 GMT"),
    "parentheses": ("", "(", ""),
    "beyond ASCII": ("", "²é\U0001f600", ""),
}  # fmt: skip


def _text(shape, length):
    before, again, after = SHAPES[shape]
    return before + again * max(1, (length - len(before) - len(after)) // len(again)) + after


def _decoding(wire_format, **options):
    decoder = Decoder("p", wire_format=wire_format, max_message_bytes=LARGE * LONGER, **options)

    def decode(text):
        body = text.encode(errors="replace")
        decoder.decode(Received("i", body, {}))
        decoder.decode(
            Received("i", b"{}", {"content-type": text, "traceparent": text, "ce-id": text, "id": text}, text)
        )
        decoder.decode(Received("i", b"1", {"ce_specversion": "1.0", "ce_id": "1", "ce-source": text, text: text}))

    return decode


def _record(text):
    return Record(1, "o:1", text, text, text.encode(errors="replace"), {"type": text, text: text})


def _verifying(text):
    for scheme, header in (
        ("standard", "webhook-signature"), ("github", "x-hub-signature-256"), ("stripe", "stripe-signature"),
        ("hmac", "x-signature-256"), ("bearer", "authorization"),
    ):  # fmt: skip
        value = text.encode("latin-1", "replace").decode("latin-1")
        for prefix in ("", "sha256=", "v1,", "Bearer "):
            headers = {"webhook-id": value, "webhook-timestamp": "1", header: prefix + value}
            Verifier(cast(Scheme, scheme), ("secret-value",)).problem(headers, b"body", 1.0)


def _encoding(text):
    headers = json_text.encode_object({"type": text.encode(errors="replace").decode()})
    message = Message(1, text, b"1", headers, "2025-03-01T12:00:00.000000Z")
    for wire_format in ("envelope", "cloudevents", "debezium"):
        wire = Wire(
            outbox="o", pipeline="p", subject_template="{key}.{type}", wire_format=wire_format, keeps_headers=True
        )
        wire.records([message])
    json_text.values(headers)


def _sqs(text):
    sqs.unpack(text, {name: {"StringValue": text, "DataType": "String.json"} for name in ("relay-headers", "a")})
    sqs.unpack(text, {"relay-encoding": {"StringValue": "base64", "DataType": "String"}})
    sqs.pack(text.encode(errors="replace"), text, {text: text})
    sqs.fifo_id(text)


def _redis(text):
    data = text.encode(errors="replace")
    redis_entry.received("s", b"1-0", [b"h:" + data, data, data, data, b"x", data], None)
    redis_entry.largest_text_bytes(_record(text))


def _rabbitmq(text):
    value = text.encode(errors="replace")
    table = b"\x01aS" + struct.pack(">I", len(value)) + value
    table += b"".join(b"\x02b" + value[:1] + b"V" for _ in range(len(value) // 4))
    rabbitmq_headers(struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", len(table)) + table)


def _nats(text):
    value = text.encode(errors="replace").replace(b"\r\n", b"\r\na: b\r\n")
    asyncio.run(Client()._process_headers(b"NATS/1.0\r\na: " + value + b"\r\n\r\n"))


def _splitting(text):
    data = text.encode(errors="replace")
    splitter = Splitter(LARGE * LONGER)
    for at in range(0, len(data), 16):
        splitter.feed(data[at : at + 16])
    splitter.finish()


def _refused(read, *errors):
    def call(text):
        with contextlib.suppress(*errors):
            read(text)

    return call


READERS = {
    "members": _refused(json_text.members, ValueError),
    "members, in Python": _refused(json_scanner.members, ValueError),
    "parse": _refused(json_text.parse, ValueError, RecursionError),
    "string": _refused(json_text.string, ValueError),
    "is_value": json_text.is_value,
    "raw": _decoding("raw", event_id="$.a", event_type="{header.x}"),
    "envelope": _decoding("envelope"),
    "cloudevents": _decoding("cloudevents"),
    "debezium": _decoding("debezium"),
    "encoding": _encoding,
    "headers of a message": _refused(lambda text: json_text.values(text.encode(errors="replace")), ValueError),
    "headers of NATS": _nats,
    "headers of RabbitMQ": _rabbitmq,
    "line of JSON": _refused(lambda text: parse_line(1, text), BadLine),
    "lines in pieces": _splitting,
    "mask": mask,
    "mask of any length": lambda text: mask(text, most_characters=None),
    "reason of PostgreSQL": lambda text: reason_of(psycopg.OperationalError(text)),
    "mask of a configuration": lambda text: mask_config({"password": text, "a": text}),
    "references": lambda text: REFERENCE.sub("", text),
    "errors": lambda text: RelayError(f"message {text!r}"),
    "printable": lambda text: (printable(text), printable_lines(text), printable_json(text)),
    "signatures": _verifying,
    "Retry-After": lambda text: retry_after_seconds(text, 0.0),
    "header of HTTP": _refused(_checked_name, ValueError),
    "URL": lambda text: UrlTemplate("https://h/{key}/{header.type}").target(_record(text)),
    "subject of NATS": _subject_problem,
    "topic of Kafka": bad_topic,
    "SQS": _refused(_sqs, RecursionError, ValueError),
    "Redis": _redis,
}


@pytest.fixture(autouse=True)
def _a_known_secret():
    known_secrets.forget_all()
    known_secrets.remember("secret-value")
    yield
    known_secrets.forget_all()


def _seconds(read, text, *, times=1):
    spent = []
    for _ in range(times):
        begun = time.thread_time()
        read(text)
        spent.append(time.thread_time() - begun)
    return min(spent)


def _growth(read, shape):
    """How many times longer eight times the text takes; 0 if even the largest text takes no time."""
    length = SMALL
    while (spent := _seconds(read, _text(shape, length))) < ENOUGH_SECONDS:
        if length >= LARGE:
            return 0.0
        length *= 2
    return _seconds(read, _text(shape, LONGER * length)) / min(spent, _seconds(read, _text(shape, length)))


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_time_in_proportion_to_the_text(reader):
    grown = {shape: _growth(READERS[reader], shape) for shape in SHAPES}
    suspects = [shape for shape, growth in grown.items() if growth > MOST_GROWTH]
    # Twice, since a page of memory or a collection of garbage can come in between.
    assert not {shape: again for shape in suspects if (again := _growth(READERS[reader], shape)) > MOST_GROWTH}
