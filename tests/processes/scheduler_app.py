"""`relay-scheduler`, knowing the recording sink."""

from scheduler.cli import main
from tests.processes import recording_sink

if __name__ == "__main__":
    assert recording_sink.SINKS
    main()
