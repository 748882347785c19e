"""Standard input in batches of lines: whole lines, in bounded memory, and no line waits for more than it must."""

import io
import select
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_READ_BYTES = 256 * 1024
# A program that writes line by line is given so long for its next one, before what came is written.
_PAUSE_SECONDS = 0.05


class InputLine(NamedTuple):
    number: int
    """From 1; blank lines count too."""
    body: bytes
    """Of a line that is too long: one byte more than the most."""


class Splitter:
    """Bytes as they come -> lines."""

    def __init__(self, max_line_bytes: int) -> None:
        self._most = max_line_bytes
        self._number = 0
        self._begun = b""
        """Of the last line, as far as it is kept."""

    def feed(self, data: bytes) -> list[InputLine]:
        *ended, begun = data.split(b"\n")
        lines: list[InputLine] = []
        for text in ended:
            lines += self._line(self._begun + text)
            self._begun = b""
        # One byte for a carriage return, and one that tells that it is too long.
        self._begun = (self._begun + begun)[: self._most + 2]
        return lines

    def finish(self) -> list[InputLine]:
        """The last line, if it has no end."""
        begun, self._begun = self._begun, b""
        return self._line(begun) if begun else []

    def _line(self, text: bytes) -> list[InputLine]:
        self._number += 1
        body = text.removesuffix(b"\r")
        if self._number == 1:
            body = body.removeprefix(b"\xef\xbb\xbf")
        body = body[: self._most + 1]
        return [InputLine(self._number, body)] if body and not body.isspace() else []


def batches(file: BinaryIO, max_line_bytes: int, max_lines: int, max_bytes: int) -> Iterator[list[InputLine]]:
    """The lines, in batches that end when they are large enough or when nothing more comes for now."""
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
    """What is there, as soon as there is something; empty at the end."""
    if isinstance(file, io.BufferedReader):
        return file.read1(_READ_BYTES)
    return file.read(_READ_BYTES)


def _more_comes(file: BinaryIO) -> bool:
    try:
        return bool(select.select([file], [], [], _PAUSE_SECONDS)[0])
    except (OSError, ValueError):  # no descriptor to wait for: it does not make anybody wait either
        return True
