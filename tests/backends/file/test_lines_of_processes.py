"""The sinks of lines, file and standard output, in processes of their own: some at a time, and one that is killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from relay.backends.file.config import FileSinkConfig
from relay.backends.file.sink import FileSink
from relay.models import Record
from tests.waiting import wait_until

WRITER = """
import resource, signal, sys
from relay import reach
from relay.models import Record
from relay.backends.file.config import FileSinkConfig
from relay.backends.file.sink import FileSink
path, name, batches, dies_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
reach.put_in_force(reach.Reach(sink_folders=("/",)))
sink = FileSink(FileSinkConfig(path=path, fsync=False), name)
sink.open()
print("open", flush=True)
if dies_at:  # the system kills the process as soon as it has written this much of the file
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (dies_at, dies_at))
for number in range(batches):
    body = (name * 3000).encode()
    sink.publish([Record(number, "", "", None, body, {}) for _ in range(5)])
"""


SENDER = """
import io, sys
from relay.models import Record
from relay.backends.stdio.config import StdoutSinkConfig
from relay.backends.stdio.sink import StdoutSink
sys.stdout = io.StringIO()  # as inside a worker: something without a descriptor
sink = StdoutSink(StdoutSinkConfig(), sys.argv[1])
sink.open()
for _ in range(int(sys.argv[2])):
    sink.publish([Record(1, "", "", None, (sys.argv[1] * 1000).encode(), {})] * 10)
"""


@contextmanager
def writer(path: Path, name: str, batches: int, dies_at: int = 0) -> "Iterator[subprocess.Popen[bytes]]":
    """Another process that writes lines of 3,000 times its name; it has the file open when this returns.

    With `dies_at`, it is killed in the middle of a write, when the file has this size.
    """
    command = [sys.executable, "-c", WRITER, str(path), name, str(batches), str(dies_at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_torn_line_never_outlives_the_next_open_however_a_writer_was_killed(path: Path) -> None:
    for _ in range(5):
        with writer(path, "a", 1_000_000) as process:
            size = path.stat().st_size
            wait_until(partial(lambda size: path.stat().st_size > size + 100_000, size))
            process.send_signal(signal.SIGKILL)
        sink = FileSink(FileSinkConfig(path=str(path)), "to-file")
        sink.open()
        sink.close()
        assert set(path.read_bytes().splitlines()) == {b"a" * 3000}
        assert path.read_bytes().endswith(b"\n")


def crashed(path: Path, dies_at: int) -> None:
    with writer(path, "a", 1, dies_at) as process:
        assert process.wait(60) == -signal.SIGXFSZ


def test_a_crash_in_the_middle_of_a_line_costs_that_line_only(path: Path) -> None:
    path.write_bytes(b"a partial line of another program")
    crashed(path, 8000)
    assert path.stat().st_size == 8000
    sink = FileSink(FileSinkConfig(path=str(path)), "to-file")
    sink.open()
    sink.publish([Record(1, "", "", None, b"next", {})])
    sink.close()
    assert path.read_bytes().splitlines() == [b"a partial line of another program", *[b"a" * 3000] * 2, b"next"]


@pytest.mark.parametrize("theirs", [b"theirs\nand no end", b"0"], ids=["appended", "in its place"])
def test_what_others_wrote_since_a_crash_stays(path: Path, theirs: bytes) -> None:
    crashed(path, 8000)
    if theirs == b"0":
        path.write_bytes(theirs)  # the same inode, with our note on it
    else:
        with path.open("ab") as other:
            other.write(b"b" * 10_000 + theirs)
    before = path.read_bytes()
    sink = FileSink(FileSinkConfig(path=str(path)), "to-file")
    sink.open()
    assert path.read_bytes() == before
    sink.publish([Record(1, "", "", None, b"next", {})])
    sink.close()
    assert path.read_bytes() == before + b"\nnext\n"


def test_two_writers_never_mix_within_a_line(path: Path) -> None:
    with writer(path, "a", 200) as one, writer(path, "b", 200) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 3000] * 1000 + [b"b" * 3000] * 1000


def test_what_is_sent_to_stdout_goes_to_the_real_standard_output_whatever_sys_stdout_is() -> None:
    run = subprocess.run([sys.executable, "-c", SENDER, "a", "2"], capture_output=True, check=True, timeout=60)
    assert run.stdout == (b"a" * 1000 + b"\n") * 20


def test_standard_output_may_be_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        subprocess.run([sys.executable, "-c", SENDER, "a", "2"], stdout=file, check=True, timeout=60)
    assert (tmp_path / "out").read_bytes() == (b"a" * 1000 + b"\n") * 20
