"""Records of other programs, which a client in Python could not write: none of them ends the process."""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay.backends.kafka.errors import ERRORS
from tests.services.kafka import KafkaServer
from tests.services.kafka_foreign import Foreign, send_foreign

ROOT = Path(__file__).parents[3]
GOOD = Foreign(b'{"good": true}', [(b"name", b"value"), (b"none", None)], b"k")

# In a process of its own, which a broken list of the client would end; hot, as in a worker, where CPython checks less.
SCRIPT = """
import gc, json, sys
from relay.backends.kafka.config import KafkaSourceConfig
from relay.backends.kafka.source import KafkaSource

brokers, topic, count = sys.argv[1:]
source = KafkaSource(KafkaSourceConfig(brokers=brokers, topic=topic), "foreign")
source.open({})
received = []
while len(received) < int(count):
    received += source.receive(100, 0.5)
source.close()
gc.collect()
failures = [r.failure and [r.failure.permanent, r.failure.code, r.failure.reason] for r in received]
told = [[r.id, r.body.decode(), r.key, r.headers, failure] for r, failure in zip(received, failures)]
print(json.dumps(told))
"""


@pytest.fixture
def topic(kafka_server: KafkaServer) -> str:
    name = f"foreign-{uuid.uuid4().hex[:12]}"
    kafka_server.create_topic(name)
    return name


def received(server: KafkaServer, topic: str, count: int) -> list[Any]:
    command = [sys.executable, "-c", SCRIPT, server.url, topic, str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])  # after what is logged
    return found


@pytest.mark.parametrize(
    "headers",
    [
        [(b"\xff\xfe", b"1")],
        [(b"gr\xfcn", b"1"), (b"ok", b"2")],
        [(b"ok", b"2"), (b"\xed\xa0\x80", None)],
        [(b"\xff", b"1"), (b"\xfe", b"2"), (b"ok", b"3"), (b"\xc3\xa9", b"4")],
        [(b"\xff", b"\xff")] * 50,
    ],
    ids=["one", "latin-1", "surrogate", "several", "many"],
)
def test_a_header_whose_name_is_no_utf8_makes_its_record_alone_a_dead_letter(
    kafka_server: KafkaServer, topic: str, headers: list[tuple[bytes, bytes | None]]
) -> None:
    send_foreign(kafka_server.url, topic, [GOOD] * 200)
    bad = Foreign(b'{"bad": true}', headers, b"k")
    for _ in range(20):
        send_foreign(kafka_server.url, topic, [GOOD, bad, GOOD])
    found = received(kafka_server, topic, 260)
    assert [known for known, *_ in found] == [f"{topic}/0/{offset}" for offset in range(260)]
    failed = [entry[1:] for entry in found if entry[4]]
    assert [(body, key, kept, failure[:2]) for body, key, kept, failure in failed] == [
        ('{"bad": true}', "k", {}, [True, "bad_header"])
    ] * 20
    assert f"the name {next(name for name, _ in headers if name != b'ok')!r} of a header" in failed[0][3][2]
    assert [entry[1:] for entry in found if not entry[4]] == [
        ['{"good": true}', "k", {"name": "value", "none": ""}, None]
    ] * 240


def test_odd_names_and_values_that_the_client_can_read_are_rows(kafka_server: KafkaServer, topic: str) -> None:
    headers = [(b"", b"empty"), (b"a\0b", b"1"), ("é".encode(), b"\xff"), (b"x", b"\0"), (b"n", None)]
    send_foreign(kafka_server.url, topic, [GOOD, Foreign(b"{}", headers), GOOD])
    _, odd, _ = received(kafka_server, topic, 3)
    assert odd[4] is None
    assert odd[3] == {"": "empty", "a": "1", "é": "/w==", "x": "AA==", "n": ""}


def test_a_brokers_text_that_is_no_utf8_is_shown_as_far_as_it_is() -> None:
    unreadable = SimpleNamespace(str=b"gr\xfcn is closed".decode, name=lambda: "_ALL_BROKERS_DOWN")
    error = ERRORS.lost(unreadable, "Kafka")
    assert (str(error), error.code) == ("Kafka: gr\ufffdn is closed", "not_connected")
