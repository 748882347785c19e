"""`relay-scheduler`, knowing the recording sink."""

import tests.processes.register_recording_sink
from scheduler.cli import main

if __name__ == "__main__":
    assert tests.processes.register_recording_sink
    main()
