"""A process that is halted does nothing, however busy it was, and goes on afterwards."""

import mmap
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.halt import halted
from tests.waiting import wait_until

COUNTS = """
import mmap, sys, threading
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 0)
def count(place):
    while True:
        shared[place] = (shared[place] + 1) % 256
for place in range(1, 4):
    threading.Thread(target=count, args=[place]).start()
count(0)
"""


@contextmanager
def counting(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], mmap.mmap]]:
    path.write_bytes(bytes(4))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as counts:
        process = subprocess.Popen([sys.executable, "-c", COUNTS, str(path)])
        try:
            wait_until(lambda: all(counts[:]), what="all threads count")
            yield process, counts
        finally:
            process.kill()
            process.wait()


def test_nothing_moves_within_and_everything_after(tmp_path: Path) -> None:
    with counting(tmp_path / "counts") as (process, counts):
        for _ in range(20):
            with halted(process.pid):
                seen = counts[:]
                assert not threading.Event().wait(0.005)
                assert counts[:] == seen
            wait_until(lambda: counts[:] != seen)  # noqa: B023


def test_it_may_be_killed_meanwhile(tmp_path: Path) -> None:
    with counting(tmp_path / "counts") as (process, _), halted(process.pid):
        process.kill()
        process.wait()
