"""A record as an entry of a stream, and an entry as a received message.

Fields of an entry that the sink adds: `body`, then `key` unless it is null, then `header.NAME` for each header.

The source knows such entries by their fields. Of any other entry the body is the field that `body_field` names. Without
that key it is the only field if it has a usual name, else the whole entry as a JSON object of texts.
"""

import json

from relay.backends.common.short_cache import cached_if_short
from relay.backends.redis.config import RedisSinkConfig
from relay.models import Received, Record
from relay.wire.storable import storable_text

ID_FIELD = "relay-id"
HEADER_PREFIX = "header."

_OURS = b"body"
_KEY = b"key"
_HEADER = HEADER_PREFIX.encode()
_USUAL = frozenset({b"body", b"payload", b"data", b"message", b"value"})

Fields = list[bytes]
"""Names and values by turns, as Redis sends them."""


def add_command(record: Record, config: RedisSinkConfig) -> list[str | bytes]:
    """The words of the command that adds the record to its stream."""
    words: list[str | bytes] = ["XADD", record.subject]
    if config.maxlen is not None:
        words += ("MAXLEN", "~" if config.approximate else "=", str(config.maxlen))
    words += (f"{record.id}-0" if config.exactly_once else "*", "body", record.body)
    if record.key is not None:
        words += ("key", record.key)
    headers = record.headers
    for name, value in headers.items():
        words += (HEADER_PREFIX + name, value)
    if ID_FIELD not in headers:
        # By it a receiver recognizes a repetition, whatever the wire format put into the headers.
        words += (HEADER_PREFIX + ID_FIELD, record.dedup_id)
    return words


def largest_text_bytes(record: Record) -> int:
    """The longest of the texts that the entry is made of: what the server's `proto-max-bulk-len` counts."""
    size = len(record.body)
    names = [HEADER_PREFIX + name for name in record.headers]
    for text in (record.subject, record.key or "", *names, *record.headers.values()):
        # UTF-8 takes at most four bytes a character; count them only when it could matter.
        if 4 * len(text) > size:
            size = max(size, len(text.encode()))
    return size


def received(stream: str, entry_id: bytes, fields: Fields, body_field: bytes | None) -> Received:
    number = entry_id.decode()
    body, key, headers = _parts(fields, body_field)
    return Received(f"{stream}/{number}", body, headers, key, stream, stream, number, entry_id)


def bare(stream: str, entry_id: bytes, fields: Fields) -> Received:
    """The entry with its body, or with all that it has instead, a line for each field and value."""
    number = entry_id.decode()
    names = fields[::2]
    body = fields[2 * names.index(_OURS) + 1] if _OURS in names else b"\n".join(fields)
    return Received(f"{stream}/{number}", body, {}, None, stream, stream, number, entry_id)


def size_of(fields: Fields) -> int:
    return sum(map(len, fields))


def _parts(fields: Fields, body_field: bytes | None) -> tuple[bytes, str | None, dict[str, str]]:
    """Body, key, headers."""
    if body_field is not None and body_field in fields[::2]:
        return _chosen(dict(zip(fields[::2], fields[1::2], strict=True)), body_field)
    body: bytes | None = None
    key: str | None = None
    headers: dict[str, str] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        header = _header(name)
        if header is not None:
            headers[header] = _value(value)
        elif name == _OURS:
            body = value
        elif name == _KEY:
            key = _value(value)
        else:
            break
    else:
        if body is not None:
            return body, key, headers
    if len(fields) == 2 and fields[0] in _USUAL:
        return fields[1], None, {}
    return _as_object(list(zip(fields[::2], fields[1::2], strict=True))), None, {}


@cached_if_short
def _header(field: bytes) -> str | None:
    return _text(field.removeprefix(_HEADER)) if field.startswith(_HEADER) else None


def _chosen(by_name: dict[bytes, bytes], body_field: bytes) -> tuple[bytes, str | None, dict[str, str]]:
    """The other fields travel as headers."""
    key = by_name.get(_KEY) if body_field != _KEY else None
    headers = {
        _text(name.removeprefix(_HEADER)): _value(value)
        for name, value in by_name.items()
        if name not in (body_field, _KEY)
    }
    return by_name[body_field], None if key is None else _value(key), headers


def _as_object(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Bytes that are not UTF-8 stay as they are: no JSON then, so that a dead letter keeps them."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        texts = values.setdefault(name.decode("utf-8", "surrogateescape"), [])
        texts.append(value.decode("utf-8", "surrogateescape"))
    # Redis lets a name come twice.
    fields = {name: texts[0] if len(texts) == 1 else texts for name, texts in values.items()}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def _value(value: bytes) -> str:
    """Base64 where PostgreSQL could not store it."""
    return storable_text(_text(value))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
