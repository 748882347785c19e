"""What a message costs in the wire formats that take JSON apart: with msgspec, as the relay runs, and without it.

Without it means `relay.wire.json_scanner`, the fallback for what msgspec refuses, and the encoder and parser of the
standard library. Both take the same messages in turns, in this process.
"""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Stack
from relay.models import Message, Received
from relay.wire import encode, json_scanner
from relay.wire.decode import Decoder
from relay.wire.encode import Wire
from relay.wire.formats import cloudevents, debezium, envelope
from relay.wire.templates import encode_json

TARGET = 1.5
"""How often as many messages, at least, are decoded in the same time."""

FORMATS = ("envelope", "cloudevents_structured", "debezium")
HEADERS = b'{"type": "order.paid", "tenant": "eu-1"}'
LINES = json.dumps({"lines": [{"sku": f"A-{n}", "qty": n, "price": n * 1.25, "note": "left"} for n in range(90)]})
PAYLOADS = {"200 bytes": PAYLOAD, "5 KB": LINES}
REFUSED = {"200 bytes that msgspec refuses": PAYLOAD.replace("129.95", "NaN")}
MESSAGES = 500


def run(_stack: Stack, effort: Effort) -> Iterator[Figure]:
    for wire_format in FORMATS:
        decode = Decoder("p", wire_format=wire_format).decode
        # A sink without headers: everything is in the body.
        wire = Wire(outbox="o", pipeline="p", subject_template="s", wire_format=wire_format, keeps_headers=False)
        for size, payload in (PAYLOADS | REFUSED).items():
            messages = [_message(number, payload) for number in range(MESSAGES)]
            received = [Received(str(record.id), record.body, {}) for record in wire.records(messages)]
            rates = _rates(partial(_each, decode, received), effort)
            value, note = ratio(rates["with"], rates["without"]), _microseconds(rates)
            what = f"{wire_format}, {size}: decode, with msgspec / without"
            yield at_least(what, value, TARGET, note) if size in PAYLOADS else Figure(what, f"{value:.2f}", note=note)
            if size in PAYLOADS:
                rates = _rates(partial(wire.records, messages), effort)
                what = f"{wire_format}, {size}: encode, with msgspec / without"
                yield Figure(what, f"{ratio(rates['with'], rates['without']):.2f}", note=_microseconds(rates))


def _each(decode: Callable[[Received], object], received: Sequence[Received]) -> None:
    for message in received:
        decode(message)


def _message(number: int, payload: str) -> Message:
    return Message(number, f"customer-{number}", payload.encode(), HEADERS, "2025-03-01T12:00:00.000000Z")


def _rates(work: Callable[[], object], effort: Effort) -> dict[str, list[float]]:
    """Messages per second."""

    def without() -> float:
        with _without_msgspec():
            return _rate(work, effort)

    # Short turns, many of them: what others do on the machine then hits both.
    return in_turns({"with": lambda: _rate(work, effort), "without": without}, effort.rounds * 5)


def _rate(work: Callable[[], object], effort: Effort) -> float:
    began = time.perf_counter()
    end, rounds = began + effort.seconds / 20, 0
    while (now := time.perf_counter()) < end:
        work()
        rounds += 1
    return rounds * MESSAGES / (now - began)


def _microseconds(rates: dict[str, list[float]]) -> str:
    """Of one message."""
    each = {name: statistics.median(1e6 / rate for rate in of) for name, of in rates.items()}
    return f"{each['with']:.1f} µs a message, without {each['without']:.1f} µs"


@contextlib.contextmanager
def _without_msgspec() -> Iterator[None]:
    parse = json_scanner.decoder.decode
    common: dict[str, Callable[..., Any]] = {"members": json_scanner.members, "string": _string}
    replaced: dict[ModuleType, dict[str, Callable[..., Any]]] = {
        envelope: common | {"_headers": parse},
        cloudevents: common | {"scalar": _scalar, "encode_object": _encode_object},
        debezium: common | {"scalar": _scalar, "encode_object": _encode_object, "is_value": _is_value},
        encode: {"values": json.loads},
    }
    with contextlib.ExitStack() as stack:
        for module, functions in replaced.items():
            for name, function in functions.items():
                stack.enter_context(mock.patch.object(module, name, function))
        yield


def _string(text: str | None) -> str | None:
    return json_scanner.decoder.decode(text) if text is not None and text.startswith('"') else None


def _scalar(text: str | None) -> str | None:
    if text is None or text == "null" or text[:1] in ("{", "["):
        return None
    return _string(text) if text.startswith('"') else text


def _is_value(text: str) -> bool:
    return json_scanner.value_end(text, 0) == len(text)


def _encode_object(value: dict[str, Any]) -> bytes:
    return encode_json(value).encode()
