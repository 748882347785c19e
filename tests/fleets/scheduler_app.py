"""`relay-scheduler`, knowing the recording sink.

If a test says so, it declares another scheduler frozen sooner, or measures more often.
"""

import os

import scheduler.inboxes
import scheduler.job_chores
import scheduler.main
import scheduler.streams
import tests.fleets.register_recording_sink  # noqa: F401
from scheduler.cli import main

if __name__ == "__main__":
    scheduler.main.EVICT_SECONDS = float(os.environ.get("TEST_EVICT_SECONDS", scheduler.main.EVICT_SECONDS))
    for module in (scheduler.main, scheduler.job_chores, scheduler.inboxes, scheduler.streams):
        module.MEASURE_SECONDS = float(os.environ.get("TEST_MEASURE_SECONDS", module.MEASURE_SECONDS))
    rescue = os.environ.get("TEST_RESCUE_SECONDS", scheduler.job_chores.RESCUE_SECONDS)
    scheduler.job_chores.RESCUE_SECONDS = float(rescue)
    main()
