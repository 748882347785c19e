"""What the programs share. Each prints `ready` when it waits for messages, and then, whenever it has settled some, how
many in all. It ends with its input, at once.
"""

import os
import sys
import threading

DATABASE_URL = os.environ["BENCH_DATABASE_URL"]
BROKERS = os.environ["BENCH_BROKERS"]
# What ours sets too, so that the same bytes go to the same Kafka.
PRODUCER: dict[str, str | int | float | bool] = {"enable.idempotence": True, "compression.type": "lz4"}


def say(what: object) -> None:
    print(what, flush=True)


def end_with_input() -> None:
    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
