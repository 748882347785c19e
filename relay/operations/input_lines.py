"""Standard input in batches of lines: complete lines, in bounded memory, without waiting longer than necessary."""

import io
import select
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from relay.wire import byte_order_mark

_READ_BYTES = 256 * 1024
# How long to wait for the next line of a program that writes line by line, before storing what came.
_PAUSE_SECONDS = 0.05


class InputLine(NamedTuple):
    number: int
    """From 1; blank lines count too."""
    body: bytes
    """Of a line that is too long: one byte more than the limit."""


class Splitter:
    """Splits bytes, as they arrive, into lines."""

    def __init__(self, max_line_bytes: int) -> None:
        self._most = max_line_bytes
        self._number = 0
        self._begun = bytearray()
        """Of the unfinished last line, up to the limit."""

    def feed(self, data: bytes) -> list[InputLine]:
        *ended, begun = data.split(b"\n")
        lines: list[InputLine] = []
        for text in ended:
            lines += self._line(self._take() + text)
        # One byte for a carriage return, one that shows that the line is too long, and the mark before it.
        self._begun += begun[: self._most + 2 + len(byte_order_mark.BYTES) - len(self._begun)]
        return lines

    def finish(self) -> list[InputLine]:
        """The last line, if it has no end."""
        begun = self._take()
        return self._line(begun) if begun else []

    def _take(self) -> bytes:
        begun = bytes(self._begun)
        self._begun.clear()
        return begun

    def _line(self, text: bytes) -> list[InputLine]:
        self._number += 1
        body = text.removesuffix(b"\r").removeprefix(byte_order_mark.BYTES)
        body = body[: self._most + 1]
        return [InputLine(self._number, body)] if body and not body.isspace() else []


def batches(file: BinaryIO, max_line_bytes: int, max_lines: int, max_bytes: int) -> Iterator[list[InputLine]]:
    """The lines, in batches that end when they are large enough or when no more input is ready."""
    splitter = Splitter(max_line_bytes)
    batch: list[InputLine] = []
    size = 0
    while data := _read(file):
        for line in splitter.feed(data):
            batch.append(line)
            size += len(line.body)
            if len(batch) >= max_lines or size >= max_bytes:
                yield batch
                batch, size = [], 0
        if batch and not _more_comes(file):
            yield batch
            batch, size = [], 0
    batch += splitter.finish()
    if batch:
        yield batch


def _read(file: BinaryIO) -> bytes:
    """What is ready, as soon as something is; empty at the end."""
    if isinstance(file, io.BufferedReader):
        return file.read1(_READ_BYTES)
    return file.read(_READ_BYTES)


def _more_comes(file: BinaryIO) -> bool:
    try:
        return bool(select.select([file], [], [], _PAUSE_SECONDS)[0])
    except (OSError, ValueError):  # no descriptor to wait for: reading it does not block either
        return True
