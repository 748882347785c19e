"""Imported by the processes of a fleet, and by nothing else: the table of sinks stays as it is for other tests."""

from relay.sinks import SINKS

SINKS["recording"] = "tests.processes.recording_sink:RecordingSink"
