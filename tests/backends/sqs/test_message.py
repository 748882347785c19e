"""What travels in an SQS message comes back exactly, and keeps to the limits of SQS."""

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.backends.sqs.message import MOST_ATTRIBUTES, fifo_id, pack, size_bytes, unpack

ALLOWED = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+\\Z")
ATTRIBUTE = re.compile(r"[A-Za-z0-9_.-]{1,256}\Z")
OURS = {"relay-id": "orders:1", "relay-outbox": "orders", "relay-created-at": "2025-03-01T12:00:00.000000Z"}
NAMES = st.text(max_size=300) | st.sampled_from(
    ["relay-key", "relay-headers", "relay-encoding", "AWS.x", "aws.x", "Amazon.x", ".a", "a.", "a..b", "a.b", "type"]
)


@settings(max_examples=50)
@given(
    st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.none() | st.text(),
    st.dictionaries(NAMES, st.text(), max_size=14),
)
@example(b"", "", {})
@example(b"a\x00b", "\x01", {"a": "", "b": "\x07", "relay-headers": "{}"})
@example(b"{}", "k", {f"h{n}": "v" for n in range(9)})
@example(b"{}", "k", {f"h{n}": "v" for n in range(10)})
@example('"\ufffe"'.encode(), None, {"ü": "日本"})
@example(b"{}", None, {"a": "x", "a\n": "y"})
def test_everything_comes_back_exactly(body: bytes, key: str | None, headers: dict[str, str]) -> None:
    text, attributes = pack(body, key, headers)
    assert unpack(text, attributes) == (body, key, headers)
    assert ALLOWED.match(text)
    assert len(attributes) <= MOST_ATTRIBUTES
    for name, attribute in attributes.items():
        assert ATTRIBUTE.match(name)
        assert not name.lower().startswith(("aws.", "amazon."))
        assert not name.startswith(".") and not name.endswith(".") and ".." not in name
        assert ALLOWED.match(attribute["StringValue"])


def test_ordinary_headers_are_ordinary_attributes() -> None:
    text, attributes = pack(b'{"a": 1}', "42", OURS | {"trace": "00-ab"})
    assert text == '{"a": 1}'
    assert {name: attribute["StringValue"] for name, attribute in attributes.items()} == OURS | {
        "relay-key": "42",
        "trace": "00-ab",
    }
    assert {attribute["DataType"] for attribute in attributes.values()} == {"String"}


def test_our_own_headers_stay_attributes_when_there_are_too_many() -> None:
    many = {f"h{number}": "v" for number in range(20)} | OURS
    _, attributes = pack(b"{}", "42", many)
    assert attributes.keys() >= OURS.keys()
    assert len(attributes) == MOST_ATTRIBUTES


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"n": {"DataType": "Number", "StringValue": "12.5"}}, {"n": "12.5"}),
        ({"b": {"DataType": "Binary", "BinaryValue": b"\x00\x01"}}, {"b": "AAE="}),
        ({"j": {"DataType": "String.json", "StringValue": "[1]"}}, {"j": "[1]"}),
        ({"j": {"DataType": "String.json", "StringValue": "{"}}, {"j": "{"}),
        ({"relay-headers": {"DataType": "String", "StringValue": "nonsense"}}, {"relay-headers": "nonsense"}),
        ({"relay-headers": {"DataType": "String", "StringValue": '{"a": 1}'}}, {"relay-headers": '{"a": 1}'}),
    ],
)
def test_attributes_of_other_senders_become_headers(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    assert unpack("text", attributes) == (b"text", None, expected)


def test_a_body_that_only_says_that_it_is_base64_is_taken_as_it_is() -> None:
    assert unpack("{}", {"relay-encoding": {"DataType": "String", "StringValue": "base64"}})[0] == b"{}"


def test_the_size_is_counted_in_bytes_with_the_attributes() -> None:
    assert size_bytes("ab", {}) == 2
    assert size_bytes("日", {"name": {"DataType": "String", "StringValue": "ü"}}) == 3 + 4 + 6 + 2


class TestFifoIds:
    @pytest.mark.parametrize("text", ["orders:1", "customer-42", "a!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~z", "x" * 128])
    def test_a_text_that_can_be_one_stays_as_it_is(self, text: str) -> None:
        assert fifo_id(text) == text

    @given(st.text(min_size=1))
    @settings(max_examples=50)
    def test_any_other_becomes_one(self, text: str) -> None:
        assert re.match(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}\Z", fifo_id(text))

    def test_different_texts_stay_different(self) -> None:
        texts = ["a b", "a%20b", "x" * 129, "x" * 130, "ü", "u", "日" * 200, "日" * 201]
        assert len({fifo_id(text) for text in texts}) == len(texts)
