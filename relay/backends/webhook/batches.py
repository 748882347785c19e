"""Many records in one request: a JSON array of their bodies, one request after the other, in order.

Headers of messages stay behind, so a wire format that has everything in the body fits best. A refusal that speaks of
the body ("malformed", "too large") is looked into by halves, until the record that is to blame stands alone: its
neighbours are delivered.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from relay.backends.common.batch import Batch
from relay.backends.webhook.client import Outgoing
from relay.backends.webhook.errors import ABOUT_THE_BODY
from relay.backends.webhook.url import BAD_URL
from relay.models import Failure, Record

_SPLIT = frozenset(f"http_{status}" for status in ABOUT_THE_BODY)
_CLOUDEVENT = "application/cloudevents+json"
_CLOUDEVENTS = "application/cloudevents-batch+json"


class Client(Protocol):
    def send(self, outgoing: Outgoing, deadline: float) -> Failure | None: ...


def send_in_arrays(
    client: Client, records: Sequence[Record], targets: Sequence[bytes | None], max_body_bytes: int, deadline: float
) -> Batch:
    batch = Batch(len(records))
    waiting = list(_arrays(records, targets, max_body_bytes))[::-1]
    while waiting and batch.blocked_by is None:
        begin, end = waiting.pop()
        target = targets[begin]
        if target is None:
            batch.fail(begin, True, "bad_url", BAD_URL)
            continue
        failure = _mistake(begin, records[begin]) or client.send(_outgoing(records[begin:end], target, begin), deadline)
        if failure is None:
            continue
        if failure.permanent and failure.code in _SPLIT and end - begin > 1:
            middle = (begin + end) // 2
            waiting += [(middle, end), (begin, middle)]
        elif failure.permanent:
            batch.add(replace(failure, index=index) for index in range(begin, end))
        else:
            batch.add((failure,))
            batch.hold_back_from(begin)
    return batch


def _arrays(records: Sequence[Record], targets: Sequence[bytes | None], limit: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the records that go together: one target, one type, and no more bytes than that."""
    begin, size = 0, 0
    for index, record in enumerate(records):
        alike = targets[index] == targets[begin] and _content_type(record.headers) == _content_type(
            records[begin].headers
        )
        if index > begin and (not alike or targets[index] is None or size + len(record.body) + 2 > limit):
            yield begin, index
            begin, size = index, 0
        size += len(record.body) + 1
    if records:
        yield begin, len(records)


def _outgoing(records: Sequence[Record], target: bytes, index: int) -> Outgoing:
    first, last = records[0], records[-1]
    message_id = first.dedup_id if len(records) == 1 else f"{first.dedup_id}-{last.id}"
    body = b"[" + b",".join([record.body or b"null" for record in records]) + b"]"
    is_event = (_content_type(first.headers) or "").partition(";")[0].strip().lower() == _CLOUDEVENT
    return Outgoing(message_id, target, body, {"content-type": _CLOUDEVENTS if is_event else "application/json"}, index)


def _mistake(index: int, record: Record) -> Failure | None:
    if any(name.lower() == "ce-id" for name in record.headers):
        reason = "an array has no headers for each event: set wire_format to cloudevents_structured, or batch to false"
        return Failure(index, False, "bad_config", reason)
    return None


def _content_type(headers: Mapping[str, str]) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == "content-type"), None)
