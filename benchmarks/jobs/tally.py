"""What the handlers of a benchmark report, in a folder that the environment names. The standard library alone: the
programs of peers import it too.

Times are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import os
import threading
import time
from pathlib import Path

FOLDER = Path(os.environ.get("BENCH_TALLY", "/dev/null"))
EVERY_SECONDS = 0.02


class Tally:
    """Of one process. Its thread begins with the first job, so after a fork."""

    def __init__(self) -> None:
        self.count = 0
        self._picked: int | None = None

    def add(self) -> None:
        """A job was handled."""
        self.count += 1
        if self.count == 1:
            threading.Thread(target=self._write, daemon=True).start()

    def pick_up(self, number: int) -> None:
        """The handler of this job has begun."""
        now = time.monotonic_ns()
        if self._picked is None:
            self._picked = os.open(FOLDER / f"picked-{os.getpid()}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(self._picked, f"{number} {now}\n".encode())

    def _write(self) -> None:
        written = 0
        with (FOLDER / f"count-{os.getpid()}").open("a", buffering=1) as file:
            while True:
                count, now = self.count, time.monotonic_ns()
                if count != written:
                    file.write(f"{now} {count}\n")
                    written = count
                time.sleep(EVERY_SECONDS)


tally = Tally()
