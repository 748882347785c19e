"""Reading lines of one open file from an offset on: complete lines only, in bounded memory, each read once."""

import os
import zlib
from typing import NamedTuple

from relay.wire import byte_order_mark

_BLOCK_BYTES = 256 * 1024
_BLANK_LINES = 1000


class Line(NamedTuple):
    body: bytes
    """Without its end. Of a line that is too long: one byte more than the most, so that it can be seen to be so."""
    start: int
    """Offset in the file."""
    end: int
    """Offset of what follows it."""
    crc: int
    """Of the body."""


class Lines:
    """`fd` stays its owner's."""

    def __init__(self, fd: int, offset: int, max_line_bytes: int) -> None:
        self.fd = fd
        self.offset = offset
        """Everything before it was returned."""
        self._most = max_line_bytes
        self.searched = offset
        """Between `offset` and here there is no line end."""

    def read(self, max_lines: int, max_bytes: int, *, ended: bool) -> list[Line]:
        """The next lines; a last one without a line end only where the file has `ended`. Blank lines are left out."""
        lines: list[Line] = []
        while len(lines) < max_lines and max_bytes > 0:
            before = self.offset
            found = self._block(max_lines - len(lines), max_bytes, ended=ended)
            lines += found
            max_bytes -= sum(len(line.body) for line in found)
            if self.offset == before:
                break
        return lines

    def _block(self, max_lines: int, max_bytes: int, *, ended: bool) -> list[Line]:
        if self.searched > self.offset:
            return self._long_line(ended=ended)
        block = os.pread(self.fd, _BLOCK_BYTES, self.offset)
        whole = block.rfind(b"\n") + 1
        if whole == 0:
            return self._long_line(ended=ended) if block else []
        lines: list[Line] = []
        start = self.offset
        # No more than are asked for; blank ones do not count.
        texts = block[: whole - 1].split(b"\n", max(max_lines, _BLANK_LINES))
        for text in texts[: max(max_lines, _BLANK_LINES)]:
            if len(lines) >= max_lines or max_bytes <= 0:
                break
            end = start + len(text) + 1
            lines += self._line(text, start, end)
            max_bytes -= len(text)
            start = end
        self._go_to(start)
        return lines

    def _long_line(self, *, ended: bool) -> list[Line]:
        """A line that no block holds whole, or that has no end yet. Bytes that were searched are not read again."""
        while block := os.pread(self.fd, _BLOCK_BYTES, self.searched):
            at = block.find(b"\n")
            if at >= 0:
                return self._take(self.searched + at, self.searched + at + 1)
            self.searched += len(block)
        return self._take(self.searched, self.searched) if ended and self.searched > self.offset else []

    def _take(self, text_end: int, end: int) -> list[Line]:
        start = self.offset
        text = self._pread(start, min(text_end - start, self._most + 2 + len(byte_order_mark.BYTES)))
        self._go_to(end)
        return self._line(text, start, end)

    def _line(self, text: bytes, start: int, end: int) -> list[Line]:
        body = text[:-1] if text.endswith(b"\r") else text
        marked = body.startswith(byte_order_mark.BYTES)  # the mark does not count
        body = body[: self._most + 1 + (len(byte_order_mark.BYTES) if marked else 0)]
        if not body or body.isspace():
            return []
        return [Line(body, start, end, zlib.crc32(body))]

    def _pread(self, start: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self.fd, size, start)):
            parts.append(part)
            start += len(part)
            size -= len(part)
        return b"".join(parts)

    def _go_to(self, offset: int) -> None:
        self.offset = self.searched = offset
