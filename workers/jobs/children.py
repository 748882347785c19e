"""Handlers with `isolation="process"`: each runs in a process of its own, which is killed when its time is over.

A process is used again after a job that it has ended. It imports the modules of handlers itself, knows no database, and
ends when this process does. One JSON object a line goes each way.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from relay.jobs.models import Ended
from workers.jobs.run import Run, settle

IDLE_KEPT = 8


class Child:
    """One process. One thread at a time; `kill` may come from another."""

    def __init__(self, modules: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "workers.jobs.child", str(theirs.fileno()), *modules]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._stream = ours.makefile("rwb")
        ours.close()
        self._is_ready = False

    def wait_ready(self) -> None:
        """Until it has imported the handlers, or has ended."""
        if not self._is_ready:
            with contextlib.suppress(OSError):
                self._stream.readline()
            self._is_ready = True

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if the process ended without one."""
        try:
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError:
            line = b""
        return json.loads(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Its exit code."""
        self.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):
            self._stream.close()
        return code


class Children:
    """Those of one worker process. Any thread."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, run: Run) -> Ended:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        child = child or Child(self._modules)
        with self._lock:
            self._busy.add(child)
        run.kill = child.kill
        if run.reason or self._closed:
            child.kill()
        child.wait_ready()
        # Its time begins when its handler does: a new process imports the application first.
        run.ends_at = time.monotonic() + run.claimed.timeout_seconds
        answer = child.ask(run.claimed._asdict())
        run.kill = None
        with self._lock:
            self._busy.discard(child)
            kept = answer is not None and run.reason is None and not self._closed and len(self._idle) < IDLE_KEPT
            if kept:
                self._idle.append(child)
        code = None if kept else child.end()
        if answer is not None:
            return Ended(**answer)
        if run.reason or self._closed:
            return run.interrupted()
        text = f"the process of its handler ended with status {code}"
        return settle(run.claimed, Ended("r", "process_ended", text))

    def close(self) -> None:
        """Kills all."""
        self._closed = True
        with self._lock:
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for child in busy:
            child.kill()
        for child in idle:
            child.end()
