"""Records as lines, and whole writes: what the file sinks and standard output share."""

import os
from collections.abc import Sequence

from relay.models import Record


def as_lines(records: Sequence[Record]) -> bytes:
    """One line for each body, each with its newline.

    PostgreSQL prints JSON without raw newlines, and in JSON a newline stands only where a space may stand too:
    should one occur, replacing it keeps both the value and the rule of one record a line.
    """
    bodies = [record.body for record in records]
    data = b"\n".join(bodies) + b"\n"
    if data.count(b"\n") != len(bodies):
        data = b"\n".join([body.replace(b"\n", b" ") for body in bodies]) + b"\n"
    return data


def write_whole(fd: int, data: bytes) -> None:
    """Write everything, however little the system takes at a time. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
