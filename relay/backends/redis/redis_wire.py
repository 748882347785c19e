"""Commands as they go over the wire to Redis. Imports redis-py nowhere."""

from collections.abc import Sequence


def packed(command: Sequence[str | bytes | int]) -> bytes:
    """A command as it goes over the wire."""
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(texts) + b"".join([bulk(text) for text in texts])


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def client_name(pipeline: str) -> str:
    """As CLIENT LIST shows it: Redis takes no spaces there."""
    return "tide-relay:" + "".join(letter if "!" <= letter <= "~" else "_" for letter in pipeline)
