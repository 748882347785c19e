"""The status of an answer whose head is broken, endless or cut off.

The status line decides what becomes of a message: the receiver has spoken. What follows it badly, in the head or in the
body, costs the connection and nothing else. If it made the message fail, the message would be sent twice.
"""

import re

KEPT_BYTES = 64 * 1024
"""How much of an answer's beginning may be looked through."""

_LINE = re.compile(rb"(?:\r?\n)*HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*([^\r\n]*?)[ \t]*\r?\n", re.IGNORECASE)


def decided(answer: bytes) -> tuple[int, bytes | None] | None:
    """The final status, and `Retry-After` as far as the head is there; None if no status line is complete."""
    at = 0
    while line := _LINE.match(answer, at):
        status = int(line[1])
        if status >= 200:
            head_end = _HEAD_END.search(answer, line.end() - 1)
            found = _RETRY_AFTER.search(answer, line.end() - 1, head_end.end() if head_end else len(answer))
            return status, found[1] if found else None
        # An interim answer, such as 103 Early Hints: the final one follows its head. 101 is none, and has none.
        head_end = _HEAD_END.search(answer, line.end() - 1)
        if status == 101 or head_end is None:
            return None
        at = head_end.end()
    return None
