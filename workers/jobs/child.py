"""The program of a process that runs one handler at a time: see `workers.jobs.children`."""

import asyncio
import json
import os
import queue
import socket
import sys
import threading
from dataclasses import asdict
from typing import IO, Any

from relay.jobs.backoff import of_options
from relay.jobs.ends import failed
from relay.jobs.models import Claimed, Ended
from relay.jobs.registry import load
from workers.jobs.run import make_context, returned


def main() -> None:
    """Ends when the other end of the socket is closed, also in the middle of a job."""
    descriptor, *modules = sys.argv[1:]
    stream = socket.socket(fileno=int(descriptor)).makefile("rwb")
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stream, requests), daemon=True).start()
    handlers = load(modules)
    stream.write(b"ready\n")
    stream.flush()
    while True:
        values: dict[str, Any] = json.loads(requests.get())
        claimed = Claimed(**values)
        ended = _run(handlers[claimed.name], claimed)
        stream.write(json.dumps(asdict(ended)).encode() + b"\n")
        stream.flush()


def _read(stream: IO[bytes], requests: "queue.SimpleQueue[bytes]") -> None:
    while line := stream.readline():
        requests.put(line)
    os._exit(1)


def _run(handler: Any, claimed: Claimed) -> Ended:
    context = make_context(claimed, claimed.timeout_seconds)
    try:
        if handler.is_coroutine:
            result = asyncio.run(handler.run_async(claimed.payload, context))
        else:
            result = handler.run(claimed.payload, context)
        return returned(handler, context, claimed, result)
    except BaseException as error:  # noqa: BLE001  also SystemExit: what a handler raises is its outcome
        return failed(handler, error, claimed.attempt, claimed.max_attempts, of_options(claimed.options))


if __name__ == "__main__":
    main()
