"""Inputs for fuzzers: texts, JSON and bytes that are likely to meet a mistake, and changes of those that are valid."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

PIECES = (
    "", "a", "id", "orders", "ключ", "日本", "🚀", "\0", "\x1b[31m", "\x7f", "\u202e", "\ufeff", "\ufffe", "\u2028",
    '"', "\\", "\\\\", '\\"', "\\u0000", "\\ud800", "\\udc00\\ud800", "/", "..", "../", ".", "*", ">", "$", "%", "%2f",
    "?", "&", "#", "{", "}", "[", "]", "{{", "}}", "\r", "\n", "\r\n", "\t", " ", ":", ";", ",", "=", "null", "true",
    "1e400", "-0", "NaN", "Infinity", "1" * 30, "9223372036854775808", "2025-13-45T99:99:99Z",
)  # fmt: skip

BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\0", b"\xef\xbb\xbf", b"\\", b'"', b"\r\n", b"\x80")

DEPTHS = (3, 100, 900, 1100, 20_000)


def text(rng: random.Random, most: int = 6) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))


def value(rng: random.Random, depth: int = 3) -> Any:
    """A JSON value."""
    kind = rng.randrange(9 if depth else 6)
    if kind > 6:
        return {text(rng, 3): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind > 3:
        return text(rng)
    integers = (0, -1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**40, rng.randrange(1000))
    fractions = (0.5, -0.0, 1e22, 1e-300, 1.7976931348623157e308, rng.random())
    return rng.choice(((None,), (True, False), integers, fractions)[kind])


def json_text(rng: random.Random) -> str:
    """Valid JSON, in one of the ways in which it can be written."""
    separators = rng.choice(((",", ":"), (", ", ": "), (" ,\n", "\t: ")))
    return json.dumps(value(rng), ensure_ascii=rng.random() < 0.5, separators=separators)


def hard_json(rng: random.Random, most: int) -> str:
    """What is costly for a careless reader: deep, long, or never ending."""
    depth = rng.choice(DEPTHS)
    return rng.choice((
        lambda: "[" * depth + "]" * depth,
        lambda: '{"a":' * depth + "1" + "}" * depth,
        lambda: "[" * depth,
        lambda: '"' + "\\\\" * rng.randrange(most),
        lambda: '"' + '\\"' * rng.randrange(most),
        lambda: "[" * depth + '"' + rng.choice(("\\n", '\\"', "\\\\")) * rng.randrange(most // 2, most),
        lambda: "[" + '"\\' * rng.randrange(most),
        lambda: "1" * rng.randrange(1, most),
        lambda: "1e" + "9" * rng.randrange(1, 400),
        lambda: " " * rng.randrange(most) + "1",
        lambda: "{" + ",".join(f'"{n}":{n}' for n in range(rng.randrange(3000))) + "}",
        lambda: '{"a":1' + ',"a":1' * rng.randrange(3000) + "}",
        lambda: "a-" * rng.randrange(most),
    ))()  # fmt: skip


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The same with a few changes, at least one."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        change: Callable[[], bytes] = rng.choice((
            lambda at=at, data=data: data[:at],
            lambda at=at, data=data: data[:at] + data[at + rng.randrange(1, 9) :],
            lambda at=at, data=data: data[:at] + rng.choice(BYTES) + data[at:],
            lambda at=at, data=data: data[:at] + rng.choice(PIECES).encode() + data[at:],
            lambda at=at, data=data: data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :],
            lambda at=at, data=data: data[:at] + data[at : at + 40] * rng.randrange(2, 5) + data[at + 40 :],
        ))  # fmt: skip
        data = change()
    return data


def swarm(rng: random.Random, choices: Sequence[str], others: Callable[[], str]) -> str:
    """One of these, most of the time."""
    return rng.choice(choices) if rng.random() < 0.8 else others()
