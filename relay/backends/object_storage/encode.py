"""Records -> the bytes of one object, in bounded memory, into a spool on disk.

The invariant: the same records make the same bytes, however they were batched on their way here, so that writing an
object again changes nothing. So there is no time of writing in it, and compressors that get blocks of a fixed size.
"""

import contextlib
import hashlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO, Any, Protocol

from relay.backends.common.lines import as_lines
from relay.backends.object_storage.config import Compression
from relay.errors import MissingExtra
from relay.models import Failure, Record

BLOCK_BYTES = 256 * 1024
"""What a compressor gets at once."""

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3


class Spool:
    """Where the bytes of an object wait: a file on disk, its size, and its MD5, taken on the way in."""

    def __init__(self, file: IO[bytes], path: str | None = None) -> None:
        """`path` is the file's own, to be removed at the end; None for a file without a name."""
        self.file = file
        self.path = path
        self.size = 0
        self.closed = False
        self._md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        """Nothing at all once the spool is closed: pyarrow writes an end even to what is thrown away."""
        if not self.closed:
            self.file.write(data)
            self._md5.update(data)
            self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """For pyarrow, which asks for it. The store flushes the file."""

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            try:
                # What is thrown away may not even fit on the disk.
                with contextlib.suppress(OSError):
                    self.file.close()
            finally:
                if self.path is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path)


class Encoder(ABC):
    """Writes one object to a spool."""

    @abstractmethod
    def __init__(self, spool: Spool, compression: Compression) -> None:
        """Raises MissingExtra."""

    @abstractmethod
    def add(self, records: Sequence[Record]) -> list[Failure]:
        """Failures are permanent: these records cannot stand in an object of this format. Raises OSError."""

    @abstractmethod
    def finish(self) -> None:
        """Everything is in the spool. Raises OSError."""


class Compressor(Protocol):
    def compress(self, data: Any, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: Any, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class LinesEncoder(Encoder):
    """JSON lines: each body on a line of its own."""

    def __init__(self, spool: Spool, compression: Compression) -> None:
        self._spool = spool
        self._compressor = _compressor(compression)
        self._waiting = bytearray()

    def add(self, records: Sequence[Record]) -> list[Failure]:
        self._waiting += as_lines(records)
        whole = len(self._waiting) // BLOCK_BYTES * BLOCK_BYTES
        if whole:
            with memoryview(self._waiting) as view:
                for begin in range(0, whole, BLOCK_BYTES):
                    self._spool.write(self._compressor.compress(view[begin : begin + BLOCK_BYTES]))
            del self._waiting[:whole]
        return []

    def finish(self) -> None:
        self._spool.write(self._compressor.compress(self._waiting) + self._compressor.flush())
        self._waiting.clear()


def _compressor(compression: Compression) -> Compressor:
    if compression == "gzip":
        # With the header of gzip; its time stays 0, and it has no file name.
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if compression == "zstd":
        return zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()  # type: ignore[no-any-return]
    return _Plain()


def zstandard() -> Any:
    """The library. Raises MissingExtra."""
    try:
        import zstandard as library
    except ImportError:
        raise MissingExtra("object_storage", "object-storage") from None
    return library
