"""JSON taken apart without being changed. The scanner is the reference: `json_text` must give the same answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.wire import json_scanner
from relay.wire.json_scanner import value_end
from relay.wire.json_text import compact, encode_object, encode_value, is_value, members, parse, scalar, string, values
from relay.wire.templates import encode_json, header_text
from tests.nesting import DEPTH

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)

DEEP = [
    "[" * DEPTH + "]" * DEPTH,
    "[" * DEPTH + "]" * (DEPTH - 1),
    '{"a":' * DEPTH + '"}]\\""' + "}" * DEPTH,
    "[" * DEPTH + '"\\' + "]" * DEPTH,
    "[" * DEPTH + "}x" * DEPTH,
]
NUMBERS = [
    "1.10", "1e-400", "1e400", "-1E+5", "12345678901234.5678901", "9" * 5000, "-0", "-0.0", "0e1", "[1e999999999]",
    "01", "-01", "00", "1.", ".5", "+1", "-", "1e", "1e+", "2.e3", "0x1", "1_000", "١", "[-]", "[01]",
    "NaN", "-Infinity", "Infinity", "[NaN]",
]  # fmt: skip
EXACT = ["1.10", "12345678901234.5678901", f"0.{'0' * 399}1", "1e-400", "1E5", "9" * 30, "9" * 5000, f"{'9' * 5000}.50"]
STRINGS = [
    '"\\u0000"', '"\x00"', '"\x01"', '"\n"', '"\x7f"', '"\u2028"', '"é😀"', '"\\u00e9"', '"\\ud83d\\ude00"',
    '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83dx"', '["\\ud800"]', '"\ud800"', '"\\/"', '"\\x"', '"\\u12"', '"\\u12zz"',
    '"\\u 123"', '"\\u+123"', '"\\\'"', '"a', '"\\', '"a""b"', "'a'",
]  # fmt: skip
OTHERS = [
    "tru", "trueish", "nul", "null1", "True", "[1,]", "[,1]", "[1 2]", "[1,2", '{"a":1,}', '{"a"}', "{1:2}", "[]", "{}",
    " [ ] ", '{"a":1,"a":2}', '{"\\u0061":1,"a":2}', '{"a" :\t1\r,\n"b":[ 1 , 2 ] }', '{"":""}', "{,}",
    '{"a":1,,"b":2}', "\ufeff1", '\ufeff{"a":1}', "\u00a01", "1\u00a0", "\x0b1", "1\x0c", '{"a":1}\x00',
    '{"a":1}\u00a0', '{"a":1}{}', "", "//c\n1", "/* c */1",
]  # fmt: skip
VALUES = [*DEEP, *NUMBERS, *STRINGS, *OTHERS]

PIECES = [
    '"', "\\", "{", "}", "[", "]", ":", ",", " ", '"a":', '{"b":', "1.0", "-", "e5", "null", "\\u", "\\ud8",
    "00", '"é"', "\ufeff", "\x00", "\n", "NaN",
]  # fmt: skip
DOCUMENTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
"""Text that is nearly JSON."""


def outcome(of: Callable[[str], Any], text: str) -> object:
    """What comes out, in which 1, 1.0 and "1" differ; or the error."""
    try:
        return repr(of(text))
    except (ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


def assert_that_both_agree(text: str) -> None:
    assert outcome(members, text) == outcome(json_scanner.members, text)
    assert outcome(parse, text) == outcome(json_scanner.decoder.decode, text)
    if text.startswith('"'):
        assert outcome(string, text) == outcome(json_scanner.decoder.decode, text)
    assert is_value(text) == (outcome(lambda value: value_end(value, 0), text) == repr(len(text)))


@pytest.mark.parametrize("around", ["%s", '{"x":%s}', '{"x": %s ,"y":2}', "{%s:1}", " %s\n", '{"x":"\ud800","y":%s}'])
def test_the_answers_are_those_of_the_scanner(around: str) -> None:
    for value in VALUES:
        assert_that_both_agree(around % value)


@given(DOCUMENTS)
@settings(max_examples=1000)
def test_the_answers_are_those_of_the_scanner_for_what_is_nearly_json(text: str) -> None:
    assert_that_both_agree(text)
    assert_that_both_agree(f'{{"x":{text}}}')
    assert_that_both_agree(f'{{"x":"{text}"}}')


@given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 0, 2]), st.booleans())
def test_members_are_what_json_says(value: dict[str, object], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert_that_both_agree(text)
    assert {name: json.loads(part) for name, part in members(text).items()} == value


@given(st.dictionaries(st.text(), JSON, max_size=3), st.booleans())
@example({"n": 2**63, "m": -(2**64), "x": 10**400, "f": 1e22, "g": 5e-324, "h": float("inf")}, False)
def test_the_headers_of_a_message_are_what_json_says(value: dict[str, object], ascii_only: bool) -> None:
    headers = values(json.dumps(value, ensure_ascii=ascii_only).encode())
    assert {name: json.loads(encode_value(one)) for name, one in headers.items()} == value
    assert {name: header_text(one) for name, one in headers.items()} == {
        name: one if isinstance(one, str) else encode_json(one) for name, one in value.items()
    }


@pytest.mark.parametrize("number", EXACT)
def test_a_number_in_a_header_keeps_its_text_at_any_depth(number: str) -> None:
    headers = values(f'{{"a": {number}, "b": {{"c": [{number}, "x, y"], "d": {{}}}}, "e": 2, "f": "é", "g": null}}')
    assert {name: header_text(value) for name, value in headers.items()} == {
        "a": number, "b": f'{{"c":[{number},"x, y"],"d":{{}}}}', "e": "2", "f": "é", "g": "null",
    }  # fmt: skip
    assert (headers["e"], headers["g"]) == (2, None)


@given(JSON, st.booleans())
@example({"a ": ['x \\" y', "\\", "\t"]}, True)
def test_compact_is_what_the_encoder_writes(value: object, ascii_only: bool) -> None:
    assert compact(json.dumps(value, indent=1, ensure_ascii=ascii_only)) == encode_json(value)


def test_half_a_surrogate_pair_keeps_its_escape() -> None:
    assert compact('[ "\\ud800", "\\ud83d\\ude00" ]') == '["\\ud800","😀"]'


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text()))
@example({chr(code): chr(code) for code in range(0x3000)})
def test_objects_are_encoded_as_json_encodes_them(value: dict[str, str | int | bool | None]) -> None:
    assert encode_object(value).decode() == encode_json(value)


def test_members_are_slices() -> None:
    text = ' { "a" : 1.10 , "b":[ 1,2 ],"c":"x\\u00e9" } \n'
    assert members(text) == {"a": "1.10", "b": "[ 1,2 ]", "c": '"x\\u00e9"'}


def test_of_equal_names_the_last_counts() -> None:
    assert members('{"a": 1, "a": 2}') == {"a": "2"}


@pytest.mark.parametrize("value", ["[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + '"}]\\""' + "}" * DEPTH, "9" * 5000])
def test_deep_values_and_long_numbers_are_taken_whole(value: str) -> None:
    assert members(f'{{"x": {value}, "y": 2}}') == {"x": value, "y": "2"}


def test_a_string_that_does_not_end_is_read_once_to_the_end_of_the_text() -> None:
    # If each quote in it began a string again, the brackets would count, and the time would grow with the square.
    text = "[" * DEPTH + '"' + '\\"' * 10 + "]" * DEPTH
    with pytest.raises(ValueError, match="the value does not end"):
        value_end(text, 0)
    assert [token.end() for token in json_scanner._TOKEN.finditer(text, DEPTH)] == [len(text)]
    assert [token.end() for token in json_scanner._TOKEN.finditer(text[: DEPTH + 1] + "\\", DEPTH)] == [DEPTH + 2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        '"a"',
        "1",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        "{,}",
        "{a:1}",
        '{"a" 1}',
        '{"a":1 "b":2}',
        '{"a":1}x',
        '{"a":1}{}',
        '{"a":}',
        '{"a":' + "[" * DEPTH + "}",
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        members(text)


@given(JSON)
def test_a_value_ends_where_json_ends(value: object) -> None:
    text = json.dumps(value)
    assert value_end(text + ",1]", 0) == len(text) or isinstance(value, int | float)
    assert value_end(f"[{text}]", 1) == len(text) + 1


@pytest.mark.parametrize(
    ("slice_", "as_string", "as_scalar"),
    [
        ('"a\\n"', "a\n", "a\n"),
        ('""', "", ""),
        ("1.50", None, "1.50"),
        ("true", None, "true"),
        ("null", None, None),
        ("[1]", None, None),
        ('{"a":1}', None, None),
        (None, None, None),
    ],
)
def test_scalars_are_text(slice_: str | None, as_string: str | None, as_scalar: str | None) -> None:
    assert (string(slice_), scalar(slice_)) == (as_string, as_scalar)
