import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from relay.backends.stdio.config import StdoutSinkConfig
from relay.backends.stdio.sink import StdoutSink
from relay.errors import ConfigError, NotConnected
from relay.models import Record


class PipeSink(StdoutSink):
    fd: ClassVar[int]


def records(*bodies: bytes) -> list[Record]:
    return [Record(number, f"orders:{number}", "", None, body, {}) for number, body in enumerate(bodies, 1)]


@contextmanager
def pipe_sink(**options: Any) -> Iterator[tuple[PipeSink, int]]:
    """A sink whose standard output is a pipe, and the end to read from."""
    read_end, PipeSink.fd = os.pipe()
    sink = PipeSink(StdoutSinkConfig(**options), "to-terminal")
    sink.open()
    try:
        yield sink, read_end
    finally:
        os.close(PipeSink.fd)
        os.close(read_end)


def test_a_pipe_is_given_whole_lines_in_pieces_that_the_system_does_not_divide() -> None:
    # So lines of several processes do not mix. In packet mode a read gives what one write gave.
    read_end, PipeSink.fd = os.pipe2(os.O_DIRECT)
    sink = PipeSink(StdoutSinkConfig(), "to-terminal")
    sink.open()
    sink.publish(records(*[b"x" * 1000] * 10))
    pieces = [os.read(read_end, 65_536) for _ in range(3)]
    assert [len(piece) for piece in pieces] == [4004, 4004, 2002]
    assert all(piece.endswith(b"\n") for piece in pieces)
    os.close(PipeSink.fd)
    os.close(read_end)


def test_a_reader_that_went_away_is_not_connected() -> None:
    read_end, PipeSink.fd = os.pipe()
    sink = PipeSink(StdoutSinkConfig(), "to-terminal")
    sink.open()
    os.close(read_end)
    with pytest.raises(NotConnected) as caught:
        sink.publish(records(b"one"))
    assert caught.value.code == "broken_pipe"
    os.close(PipeSink.fd)


def test_a_closed_standard_output_is_a_matter_of_configuration() -> None:
    read_end, PipeSink.fd = os.pipe()
    os.close(read_end)
    os.close(PipeSink.fd)
    with pytest.raises(ConfigError, match="standard output"):
        PipeSink(StdoutSinkConfig(), "to-terminal").open()


def test_after_a_write_that_stopped_halfway_the_next_line_stands_alone() -> None:
    with pipe_sink(timeout_ms=50) as (sink, read_end):
        with pytest.raises(NotConnected) as caught:
            sink.publish(records(b"x" * 1_000_000))
        assert caught.value.code == "timeout"
        first = os.read(read_end, 1_000_000)
        assert set(first) == set(b"x")
        sink.publish(records(b"next"))
        assert os.read(read_end, 100) == b"\nnext\n"


def test_a_pipe_that_stays_full_does_not_make_empty_lines() -> None:
    with pipe_sink(timeout_ms=50) as (sink, read_end):
        os.set_blocking(PipeSink.fd, False)
        written = b"y" * 65_535 + b"\n"
        assert os.write(PipeSink.fd, written) == len(written)
        os.set_blocking(PipeSink.fd, True)
        for _ in range(2):
            with pytest.raises(NotConnected):
                sink.publish(records(b"one"))
        assert os.read(read_end, 100_000) == written
        sink.publish(records(b"two"))
        assert os.read(read_end, 100) == b"two\n"


def test_a_line_longer_than_a_pipe_takes_at_once_arrives_whole() -> None:
    with pipe_sink() as (sink, read_end):
        received = bytearray()

        def read() -> None:
            while len(received) < 300_012:
                received.extend(os.read(read_end, 65_536))

        reader = threading.Thread(target=read)
        reader.start()
        sink.publish(records(b"short", b"x" * 300_000, b"last"))
        reader.join(10)
        assert bytes(received).split(b"\n") == [b"short", b"x" * 300_000, b"last", b""]
