"""`relay-scheduler`, knowing the recording sink.

If a test says so it is sooner sure that another scheduler is frozen, or measures more often.
"""

import os

import scheduler.main
import tests.processes.register_recording_sink  # noqa: F401
from scheduler.cli import main

if __name__ == "__main__":
    scheduler.main.EVICT_SECONDS = float(os.environ.get("TEST_EVICT_SECONDS", scheduler.main.EVICT_SECONDS))
    scheduler.main.MEASURE_SECONDS = float(os.environ.get("TEST_MEASURE_SECONDS", scheduler.main.MEASURE_SECONDS))
    main()
