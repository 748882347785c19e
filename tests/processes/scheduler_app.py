"""`relay-scheduler`, knowing the recording sink, and sooner sure that another scheduler is frozen if a test says so."""

import os

import scheduler.main
import tests.processes.register_recording_sink  # noqa: F401
from scheduler.cli import main

if __name__ == "__main__":
    scheduler.main.EVICT_SECONDS = float(os.environ.get("TEST_EVICT_SECONDS", scheduler.main.EVICT_SECONDS))
    main()
