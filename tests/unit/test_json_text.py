"""JSON taken apart without being changed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.json_text import members, scalar, string, value_end

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 0, 2]), st.booleans())
def test_members_are_what_json_says(value: dict[str, object], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert {name: json.loads(part) for name, part in members(text).items()} == value


def test_members_are_slices() -> None:
    text = ' { "a" : 1.10 , "b":[ 1,2 ],"c":"x\\u00e9" } \n'
    assert members(text) == {"a": "1.10", "b": "[ 1,2 ]", "c": '"x\\u00e9"'}


def test_of_equal_names_the_last_counts() -> None:
    assert members('{"a": 1, "a": 2}') == {"a": "2"}


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, '{"a":' * 3000 + '"}]\\""' + "}" * 3000, "9" * 5000])
def test_deep_values_and_long_numbers_are_taken_whole(value: str) -> None:
    assert members(f'{{"x": {value}, "y": 2}}') == {"x": value, "y": "2"}


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
        '{"a":' + "[" * 3000 + "}",
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
