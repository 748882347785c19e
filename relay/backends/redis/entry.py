"""A record as an entry of a stream, and the command that adds it, packed as it goes over the wire.

Fields: `body`, then `key` unless it is null, then `header.NAME` for each header. `relay/backends/redis/entry.py` reads
them back. Packed here because redis-py needs three times as long for it (`make bench ARGS="--only redis"`).
"""

from functools import lru_cache

from relay.backends.redis.redis_wire import bulk
from relay.backends.redis.sink_config import RedisConfig
from relay.models import Record

ID_FIELD = "relay-id"
HEADER_PREFIX = "header."

_BODY = bulk(b"body")
_KEY = bulk(b"key")
_ANY_ID = bulk(b"*")
# XADD, the stream, the entry's id, and the field of the body with its value.
_FEWEST_WORDS = 5


def add_command(record: Record, config: RedisConfig) -> bytes:
    prefix, words = _beginning(record.subject, config.maxlen, config.approximate)
    entry_id = bulk(b"%d-0" % record.id) if config.exactly_once else _ANY_ID
    parts = [prefix, entry_id, _BODY, bulk(record.body)]
    if record.key is not None:
        parts += (_KEY, bulk(record.key.encode()))
        words += 2
    headers = record.headers
    if ID_FIELD not in headers:
        # By it a receiver knows what comes twice, whatever the wire format put into the headers.
        headers = {**headers, ID_FIELD: record.dedup_id}
    for name, value in headers.items():
        parts += (_header(name), bulk(value.encode()))
    return b"*%d\r\n%b" % (words + 2 * len(headers), b"".join(parts))


def largest_text_bytes(record: Record) -> int:
    """The longest of the texts that the entry is made of: what the server's `proto-max-bulk-len` counts."""
    size = len(record.body)
    names = [HEADER_PREFIX + name for name in record.headers]
    for text in (record.subject, record.key or "", *names, *record.headers.values()):
        # UTF-8 takes at most four bytes a character; count them only when it could matter.
        if 4 * len(text) > size:
            size = max(size, len(text.encode()))
    return size


@lru_cache(maxsize=1024)
def _beginning(stream: str, maxlen: int | None, approximate: bool) -> tuple[bytes, int]:
    """Everything before the entry's id, and how many words the whole command has without key and headers."""
    words = [b"XADD", stream.encode()]
    if maxlen is not None:
        words += [b"MAXLEN", b"~" if approximate else b"=", b"%d" % maxlen]
    return b"".join(map(bulk, words)), len(words) - 2 + _FEWEST_WORDS


@lru_cache(maxsize=1024)
def _header(name: str) -> bytes:
    return bulk((HEADER_PREFIX + name).encode())
